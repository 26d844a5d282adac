// The whole step: neighbor list, network, results by structure.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>

#include "engine.h"
#include "error.h"

namespace ase {
namespace {

// What a group's atoms keep between phases should stay in a core's own cache.
constexpr double CACHE_BYTES = 1 << 20;

StructuresView checked(const ase_student_structures& given) {
    if (given.n_structures < 1) invalid("there are no structures");
    if (!(given.skin >= 0 && std::isfinite(given.skin)))
        invalid("the skin must be zero or positive, and finite");
    StructuresView structures{given.n_structures, 0, given.n_atoms, given.positions, given.cells,
                              given.pbc};
    for (int64_t s = 0; s < given.n_structures; s++) {
        if (given.n_atoms[s] < 1) invalid("structure " + std::to_string(s) + " has no atoms");
        structures.n_total += given.n_atoms[s];
    }
    return structures;
}

}  // namespace

void Engine::compute(const ase_student_structures& given, ase_student_results& results) {
    const StructuresView structures = checked(given);
    next_phase_ = -1;
    if (is_external_) has_list_ = false;
    set_numbers(given.numbers, structures.n_total);
    const double cutoff = network_->student.cutoff;
    results.rebuilt = 0;
    if (!has_list_ || list_.skin() != given.skin || !list_.update(structures, cutoff)) {
        build_list(structures, given.skin);
        results.rebuilt = 1;
    }
    if (by_groups_) run_groups();
    else run_phases_together();
    report_outside(given, results);
    const double total = report_atoms(results);
    if (results.virials) report_virials(given, results);
    if (!std::isfinite(total)) {
        // Unusual bonds and contacts are reported with the first results of a new list, and this
        // call has no results: the next one must build the list again.
        has_list_ = false;
        throw Error(ASE_STUDENT_NOT_FINITE,
                    "energy or forces are not finite: atoms are on one spot or far too close");
    }
}

void Engine::build_list(const StructuresView& structures, double skin) {
    has_list_ = false;
    is_external_ = false;
    n_ghosts_ = 0;
    list_.build(structures, species_, radii_, (int)present_.size(), network_->student.cutoff, skin,
                atoms_per_group());
    prepare_list();
    find_unusual();
    has_list_ = true;
}

int64_t Engine::atoms_per_group() const {
    const double bytes = (double)network_->functions->state_bytes(network_->weights);
    return (int64_t)std::min(128.0, std::max(24.0, CACHE_BYTES / bytes));
}

// Run all phases of a group after each other; threads take whole groups.
void Engine::run_groups() {
    const NetworkFunctions& f = *network_->functions;
    const auto& groups = list_.groups();
    Items items(n_threads_);
    items.reset((int64_t)groups.size() - 1);
    auto work = [&](int thread) {
        if (thread >= n_threads_) return;
        for (int64_t g; (g = items.take(thread)) >= 0;) {
            const int64_t start = groups[g], end = groups[g + 1];
            const int64_t step = chunk_size(end - start, 1);
            for (int phase = 0; phase < n_phases(); phase++)
                for (int64_t i = start; i < end; i += step)
                    f.run(workspace_, &view_, thread, thread, phase, start, i,
                          (int)std::min(step, end - i));
        }
    };
    if (n_threads_ == 1) work(0);
    else pool_.run(work);
}

// Run each phase for all atoms, in chunks that threads share; all wait at the end of a phase.
void Engine::run_phases_together() {
    const NetworkFunctions& f = *network_->functions;
    const int64_t n = view_.n_atoms - view_.n_ghosts, step = chunk_size(n, n_threads_);
    std::vector<std::unique_ptr<Items>> items;
    for (int phase = 0; phase < n_phases(); phase++) {
        items.push_back(std::make_unique<Items>(n_threads_));
        items.back()->reset((n + step - 1) / step);
    }
    auto work = [&](int thread) {
        for (int phase = 0; phase < n_phases(); phase++) {
            if (thread < n_threads_)
                for (int64_t c; (c = items[phase]->take(thread)) >= 0;)
                    f.run(workspace_, &view_, 0, thread, phase, 0, c * step,
                          (int)std::min(step, n - c * step));
            if (n_threads_ > 1) pool_.barrier();
        }
    };
    if (n_threads_ == 1) work(0);
    else pool_.run(work);
}

// Compare all bonds and contacts of a new list with those of training. Once is enough: until the
// next list, atoms move by less than the skin.
void Engine::find_unusual() {
    unusual_.clear();
    if (!usual_.is_known()) return;
    constexpr int64_t ATOMS_PER_ITEM = 1024;
    const int64_t n = view_.n_atoms;
    unusual_.resize((size_t)n);
    const UsualPairs pairs(usual_, present_, network_->student.cutoff);
    Items items(n_threads_);
    items.reset((n + ATOMS_PER_ITEM - 1) / ATOMS_PER_ITEM);
    auto work = [&](int thread) {
        if (thread >= n_threads_) return;
        for (int64_t c; (c = items.take(thread)) >= 0;)
            for (int64_t i = c * ATOMS_PER_ITEM; i < std::min(n, (c + 1) * ATOMS_PER_ITEM); i++)
                unusual_[(size_t)i] = pairs.outside_bits(view_, i);
    };
    if (n_threads_ == 1) work(0);
    else pool_.run(work);
}

// Report what lies outside the limits: of all structures together, and of each if requested.
void Engine::report_outside(const ase_student_structures& structures,
                            ase_student_results& results) const {
    const auto& order = list_.order();
    const bool with_unusual = results.rebuilt && !unusual_.empty();
    std::vector<uint8_t> of_atoms(results.structures_outside ? order.size() : 0);
    int all = 0;
    for (size_t p = 0; p < order.size(); p++) {
        const int bits = outside_[p] | (with_unusual ? unusual_[p] : 0);
        all |= bits;
        if (!of_atoms.empty()) of_atoms[(size_t)order[p]] = (uint8_t)bits;
    }
    results.outside = all;
    if (of_atoms.empty()) return;
    const uint8_t* bits = of_atoms.data();
    for (int64_t s = 0; s < structures.n_structures; s++) {
        int32_t together = 0;
        for (int64_t i = 0; i < structures.n_atoms[s]; i++) together |= *bits++;
        results.structures_outside[s] = together;
    }
}

// Copy energies, forces and virials of atoms from the order of the list to that of the structures.
// Returns a sum that is finite if all energies and forces are.
double Engine::report_atoms(ase_student_results& results) const {
    const auto& order = list_.order();
    double total = 0;
    for (size_t p = 0; p < order.size(); p++) {
        const int64_t i = order[p];
        results.energies[i] = energies_[p];
        total += energies_[p];
        for (int c = 0; c < 3; c++) {
            results.forces[3 * i + c] = forces_[3 * p + c];
            total += forces_[3 * p + c];
        }
        if (results.atom_virials)
            memcpy(results.atom_virials + 9 * i, &virials_[9 * p], 9 * sizeof(double));
    }
    return total;
}

// Sum the virials of each structure's atoms, in the order of the list.
void Engine::report_virials(const ase_student_structures& structures,
                            ase_student_results& results) const {
    const auto& order = list_.order();
    std::fill_n(results.virials, 9 * structures.n_structures, 0.0);
    std::vector<int64_t> structure_of;
    if (structures.n_structures > 1) {
        structure_of.resize(order.size());
        int64_t i = 0;
        for (int64_t s = 0; s < structures.n_structures; s++)
            for (int64_t q = 0; q < structures.n_atoms[s]; q++) structure_of[i++] = s;
    }
    for (size_t p = 0; p < order.size(); p++) {
        const int64_t s = structures.n_structures > 1 ? structure_of[order[p]] : 0;
        for (int c = 0; c < 9; c++) results.virials[9 * s + c] += virials_[9 * p + c];
    }
}

}  // namespace ase
