#include "engine.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "error.h"

extern "C" void* ase_aligned_alloc(size_t alignment, size_t bytes) {
#if defined(_WIN32)
    return _aligned_malloc(bytes, alignment);
#else
    void* p = std::aligned_alloc(alignment, bytes);
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    if (p && alignment > 4096) madvise(p, bytes, MADV_HUGEPAGE);
#endif
    return p;
#endif
}

extern "C" void ase_aligned_free(void* p) {
#if defined(_WIN32)
    _aligned_free(p);
#else
    std::free(p);
#endif
}

// One instruction set, the compiler's own, makes a library that is built in seconds, for tests.
#if defined(__x86_64__) && !defined(ASE_ONE_ISA)
#define ASE_SEVERAL_ISAS
#endif

#define ASE_DECLARE(isa)                                \
    namespace isa##_single {                            \
    extern const ase::NetworkFunctions functions;       \
    }                                                   \
    namespace isa##_double {                            \
    extern const ase::NetworkFunctions functions;       \
    }
#if defined(ASE_SEVERAL_ISAS)
ASE_DECLARE(x86_64_v4)
ASE_DECLARE(x86_64_v3)
ASE_DECLARE(x86_64_v2)
#else
ASE_DECLARE(baseline)
#endif

namespace ase {
namespace {

struct Isa {
    const char* name;
    bool is_available;
    const NetworkFunctions *in_single, *in_double;
};

std::vector<Isa> isas() {
#if defined(ASE_SEVERAL_ISAS)
    __builtin_cpu_init();
    const bool v2 = __builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("popcnt");
    const bool v3 = v2 && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                    __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2");
    const bool v4 = v3 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                    __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
                    __builtin_cpu_supports("avx512vl");
    return {{"x86-64-v4", v4, &x86_64_v4_single::functions, &x86_64_v4_double::functions},
            {"x86-64-v3", v3, &x86_64_v3_single::functions, &x86_64_v3_double::functions},
            {"x86-64-v2", v2, &x86_64_v2_single::functions, &x86_64_v2_double::functions}};
#else
#if defined(__aarch64__)
    const char* name = "neon";
#else
    const char* name = "baseline";
#endif
    return {{name, true, &baseline_single::functions, &baseline_double::functions}};
#endif
}

// Below so many operations, waking a second thread costs more than it brings.
constexpr double OPERATIONS_PER_THREAD = 1.5e7;
// What a group's atoms keep between phases should stay in a core's own cache.
constexpr double CACHE_BYTES = 1 << 20;

void check_memory(bool enough) {
    if (!enough) throw Error(ASE_STUDENT_MEMORY, "there is not enough memory");
}

}  // namespace

std::vector<std::string> available_isas() {
    std::vector<std::string> names;
    for (const Isa& isa : isas())
        if (isa.is_available) names.push_back(isa.name);
    return names;
}

Network::Network(const void* data, size_t size, bool single, const std::string& wanted)
    : student(Student::read(data, size)) {
    for (const Isa& candidate : isas()) {
        if (!candidate.is_available || (!wanted.empty() && wanted != candidate.name)) continue;
        functions = single ? candidate.in_single : candidate.in_double;
        isa = candidate.name;
        break;
    }
    if (!functions)
        throw Error(ASE_STUDENT_UNSUPPORTED,
                    wanted.empty() ? "this processor is too old: x86-64-v2 is needed"
                                   : "this processor cannot run '" + wanted + "'");
    const SplineTable table = tabulate(student.functions, functions->degree, single);
    table_error = table.error;
    const NetworkWeights w = student.weights();
    const SplineView spline = table.view(student.n_rbf);
    weights = functions->create(&w, &spline);
    check_memory(weights);
}

Network::~Network() {
    if (weights) functions->destroy(weights);
}

Engine::Engine(std::shared_ptr<const Network> network, int threads)
    : network_(std::move(network)), pool_(threads) {
    workspace_ = network_->functions->create_workspace(network_->weights);
    check_memory(workspace_);
}

Engine::~Engine() {
    if (workspace_) network_->functions->destroy_workspace(workspace_);
}

void Engine::set_limits(const double* distances, const int32_t* counts, const double* forces) {
    const size_t n = network_->student.elements.size();
    is_limited_ = distances && counts && forces;
    if (is_limited_) {
        limit_distances_.assign(distances, distances + n * n);
        limit_counts_.assign(counts, counts + 2 * n);
        limit_forces_.assign(forces, forces + n);
    }
    has_list_ = false;
}

void Engine::set_usual(const ase_student_usual* usual) {
    usual_ = usual ? Usual(*usual, network_->student.elements.size()) : Usual();
    has_list_ = false;
}

// Elements that are there, and those of all atoms. The list is void if they have changed.
void Engine::take_numbers(const int64_t* numbers, int64_t n) {
    if ((int64_t)numbers_.size() == n && has_list_ &&
        !memcmp(numbers_.data(), numbers, sizeof(int64_t) * n))
        return;
    const Student& student = network_->student;
    int index_of[120];
    std::fill_n(index_of, 120, -1);
    for (size_t e = 0; e < student.elements.size(); e++) index_of[student.elements[e]] = (int)e;
    std::vector<int> elements(n), present;
    for (int64_t i = 0; i < n; i++) {
        const int index = numbers[i] >= 0 && numbers[i] < 120 ? index_of[numbers[i]] : -1;
        if (index < 0)
            throw Error(ASE_STUDENT_INVALID, "atom " + std::to_string(i) + " has atomic number " +
                                                 std::to_string(numbers[i]) +
                                                 ", which the student does not know");
        elements[i] = index;
    }
    std::vector<int> compact(student.elements.size(), -1);
    for (int index : elements) compact[index] = 0;
    for (size_t e = 0; e < compact.size(); e++)
        if (compact[e] == 0) {
            compact[e] = (int)present.size();
            present.push_back((int)e);
        }
    has_list_ = false;
    numbers_.assign(numbers, numbers + n);
    present_ = std::move(present);
    species_.resize(n);
    radii_.resize(n);
    for (int64_t i = 0; i < n; i++) {
        species_[i] = compact[elements[i]];
        radii_[i] = student.radius[elements[i]];
    }
}

int64_t Engine::atoms_per_group() const {
    const double bytes = (double)network_->functions->state_bytes(network_->weights);
    return (int64_t)std::min(128.0, std::max(24.0, CACHE_BYTES / bytes));
}

// Make a view of a new list, decide how it is run, and take the memory for it.
void Engine::take_memory() {
    list_.fill(view_);
    view_.present = present_.data();
    view_.n_ghosts = n_ghosts_;
    const size_t n = (size_t)view_.n_atoms, E = present_.size();
    view_.nearest_squared = nullptr;
    view_.largest_force_squared = nullptr;
    view_.neighbor_counts = nullptr;
    if (is_limited_) {
        const size_t S = network_->student.elements.size();
        present_distances_.resize(E * E);
        present_forces_.resize(E);
        present_counts_.resize(2 * E);
        for (size_t a = 0; a < E; a++) {
            const size_t own = (size_t)present_[a];
            for (size_t b = 0; b < E; b++) {
                const double limit = limit_distances_[own * S + (size_t)present_[b]];
                present_distances_[a * E + b] = limit * limit;
            }
            present_forces_[a] = limit_forces_[own] * limit_forces_[own];
            for (size_t c = 0; c < 2; c++) present_counts_[2 * a + c] = limit_counts_[2 * own + c];
        }
        view_.nearest_squared = present_distances_.data();
        view_.largest_force_squared = present_forces_.data();
        view_.neighbor_counts = present_counts_.data();
    }
    energies_.resize(n);
    forces_.resize(3 * n);
    virials_.resize(9 * n);
    outside_.resize(n);
    view_.energies = energies_.data();
    view_.forces = forces_.data();
    view_.virials = virials_.data();
    view_.outside = outside_.data();

    const Student& student = network_->student;
    const double operations = (double)n * student.operations_per_atom() +
                              (double)list_.n_places() * student.operations_per_pair();
    n_threads_ = (int)std::min<double>(pool_.size(), 1.0 + operations / OPERATIONS_PER_THREAD / 2);
    const auto& groups = list_.groups();
    int64_t most_atoms = 0, most_places = 0;
    for (size_t g = 0; g + 1 < groups.size(); g++) {
        most_atoms = std::max(most_atoms, groups[g + 1] - groups[g]);
        most_places =
            std::max(most_places, view_.rows[groups[g + 1]] - view_.rows[groups[g]]);
    }
    by_groups_ = n_threads_ == 1 || most_atoms * 2 * n_threads_ <= view_.n_atoms;
    if (is_external_) by_groups_ = false;
    if (!by_groups_) most_atoms = view_.n_atoms, most_places = list_.n_places();
    check_memory(network_->functions->prepare(workspace_, &view_, by_groups_ ? n_threads_ : 1,
                                              n_threads_, most_atoms, most_places));
}

// Chunks of equal size, and at least one for each thread.
int64_t Engine::chunk_size(int64_t n, int n_threads) const {
    int64_t n_chunks = (n + CHUNK - 1) / CHUNK;
    if (n_chunks < 8 * n_threads) n_chunks = (n_chunks + n_threads - 1) / n_threads * n_threads;
    return std::max<int64_t>(1, (n + n_chunks - 1) / std::max<int64_t>(1, n_chunks));
}

void Engine::run_all() {
    const NetworkFunctions& f = *network_->functions;
    const auto& groups = list_.groups();
    const int last = n_phases();
    if (by_groups_) {
        Items items(n_threads_);
        items.reset((int64_t)groups.size() - 1);
        auto work = [&](int thread) {
            if (thread >= n_threads_) return;
            for (int64_t g; (g = items.take(thread)) >= 0;) {
                const int64_t start = groups[g], end = groups[g + 1];
                const int64_t step = chunk_size(end - start, 1);
                for (int phase = 0; phase < last; phase++)
                    for (int64_t i = start; i < end; i += step)
                        f.run(workspace_, &view_, thread, thread, phase, start, i,
                              (int)std::min(step, end - i));
            }
        };
        if (n_threads_ == 1) work(0);
        else pool_.run(work);
    } else {
        const int64_t n = view_.n_atoms - view_.n_ghosts, step = chunk_size(n, n_threads_);
        std::vector<std::unique_ptr<Items>> items;
        for (int phase = 0; phase < last; phase++) {
            items.push_back(std::make_unique<Items>(n_threads_));
            items.back()->reset((n + step - 1) / step);
        }
        auto work = [&](int thread) {
            for (int phase = 0; phase < last; phase++) {
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
}

// Look at all pairs of a new list, once: until the next one, atoms move by less than the skin.
void Engine::find_unusual() {
    unusual_.clear();
    if (!usual_.is_known()) return;
    constexpr int64_t N_TOGETHER = 1024;
    const int64_t n = view_.n_atoms;
    unusual_.resize((size_t)n);
    const UsualPairs pairs(usual_, present_, network_->student.cutoff);
    Items items(n_threads_);
    items.reset((n + N_TOGETHER - 1) / N_TOGETHER);
    auto work = [&](int thread) {
        if (thread >= n_threads_) return;
        for (int64_t c; (c = items.take(thread)) >= 0;)
            for (int64_t i = c * N_TOGETHER; i < std::min(n, (c + 1) * N_TOGETHER); i++)
                unusual_[(size_t)i] = pairs.look_at(view_, i);
    };
    if (n_threads_ == 1) work(0);
    else pool_.run(work);
}

// What lies outside: of all structures together, and of each if the caller wants it.
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

void Engine::compute(const ase_student_structures& input, ase_student_results& results) {
    if (input.n_structures < 1) throw Error(ASE_STUDENT_INVALID, "there are no structures");
    if (!(input.skin >= 0 && std::isfinite(input.skin)))
        throw Error(ASE_STUDENT_INVALID, "the skin must be zero or positive, and finite");
    StructuresView structures{input.n_structures, 0, input.n_atoms, input.positions, input.cells,
                              input.pbc};
    for (int64_t s = 0; s < input.n_structures; s++) {
        if (input.n_atoms[s] < 1)
            throw Error(ASE_STUDENT_INVALID, "structure " + std::to_string(s) + " has no atoms");
        structures.n_total += input.n_atoms[s];
    }
    next_phase_ = -1;
    if (is_external_) has_list_ = false;
    take_numbers(input.numbers, structures.n_total);
    const double cutoff = network_->student.cutoff;
    results.rebuilt = 0;
    if (!has_list_ || list_.skin() != input.skin || !list_.follow(structures, cutoff)) {
        has_list_ = false;
        is_external_ = false;
        n_ghosts_ = 0;
        list_.build(structures, species_, radii_, (int)present_.size(), cutoff, input.skin,
                    atoms_per_group());
        take_memory();
        find_unusual();
        has_list_ = true;
        results.rebuilt = 1;
    }
    run_all();
    report_outside(input, results);

    // In the order of the atoms, whatever the order of the list: sums have the same bits.
    const auto& order = list_.order();
    const int64_t n = structures.n_total;
    double total = 0;
    for (int64_t p = 0; p < n; p++) {
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
    if (results.virials) {
        std::fill_n(results.virials, 9 * input.n_structures, 0.0);
        std::vector<int64_t> structure_of;
        if (input.n_structures > 1) {
            structure_of.resize(n);
            int64_t i = 0;
            for (int64_t s = 0; s < input.n_structures; s++)
                for (int64_t q = 0; q < input.n_atoms[s]; q++) structure_of[i++] = s;
        }
        for (int64_t p = 0; p < n; p++) {
            const int64_t s = input.n_structures > 1 ? structure_of[order[p]] : 0;
            for (int c = 0; c < 9; c++) results.virials[9 * s + c] += virials_[9 * p + c];
        }
    }
    if (!std::isfinite(total)) {
        // What is unusual in a list is told with its first results, and these are none.
        has_list_ = false;
        throw Error(ASE_STUDENT_NOT_FINITE,
                    "energy or forces are not finite: atoms are on one spot or far too close");
    }
}

void Engine::set_list(int64_t n_atoms, int64_t n_ghosts, const int64_t* numbers,
                      const int64_t* rows, const int64_t* neighbors, const double* shifts) {
    if (n_atoms < 1 || n_ghosts < 0 || n_ghosts >= n_atoms)
        throw Error(ASE_STUDENT_INVALID, "there must be an atom that is no ghost");
    next_phase_ = -1;
    has_list_ = false;
    take_numbers(numbers, n_atoms);
    for (int64_t i = n_atoms - n_ghosts; i < n_atoms; i++)
        if (rows[i + 1] != rows[i]) throw Error(ASE_STUDENT_INVALID, "a ghost has neighbors");
    for (int64_t p = 0; p < rows[n_atoms]; p++)
        if (neighbors[p] >= 0 && neighbors[p] < n_atoms - n_ghosts &&
            rows[neighbors[p] + 1] == rows[neighbors[p]])
            throw Error(ASE_STUDENT_INVALID, "atom " + std::to_string(neighbors[p]) +
                                                 " is a neighbor and has none");
    list_.set(n_atoms, species_, radii_, (int)present_.size(), rows, neighbors, shifts);
    is_external_ = true;
    n_ghosts_ = n_ghosts;
    take_memory();
    has_list_ = true;
}

void Engine::set_cell(const double* cell) {
    if (!has_list_ || !is_external_) throw Error(ASE_STUDENT_INVALID, "no list was set");
    Matrix matrix;
    std::copy_n(cell, 9, matrix.begin());
    for (double c : matrix)
        if (!std::isfinite(c)) throw Error(ASE_STUDENT_INVALID, "the cell is not finite");
    list_.follow_cell(matrix);
    list_.fill(view_);
}

void Engine::begin(const double* positions) {
    if (!has_list_ || !is_external_) throw Error(ASE_STUDENT_INVALID, "no list was set");
    next_phase_ = -1;
    list_.take_positions(positions);
    std::fill(forces_.begin(), forces_.end(), 0.0);
    std::fill(virials_.begin(), virials_.end(), 0.0);
    std::fill(energies_.begin(), energies_.end(), 0.0);
    next_phase_ = 0;
}

void Engine::exchange(int phase, void** rows, int64_t* bytes) {
    if (!has_list_ || !is_external_ || phase < 0 || phase >= n_phases())
        throw Error(ASE_STUDENT_INVALID, "there is no such phase");
    const ExchangeView view = network_->functions->exchange(workspace_, phase);
    *rows = view.rows;
    *bytes = view.bytes_per_row;
}

void Engine::run_phase(int phase) {
    if (phase < 0 || phase != next_phase_ || phase >= n_phases())
        throw Error(ASE_STUDENT_INVALID, "phases must run in order, after begin");
    const int64_t n = view_.n_atoms - view_.n_ghosts;
    // Forces on ghosts are added to by many atoms: one thread, in order.
    const bool is_alone = n_threads_ == 1 || (phase == n_phases() - 1 && view_.n_ghosts > 0);
    const int n_threads = is_alone ? 1 : n_threads_;
    const int64_t step = chunk_size(n, n_threads);
    Items items(n_threads);
    items.reset((n + step - 1) / step);
    auto work = [&](int thread) {
        if (thread >= n_threads) return;
        for (int64_t c; (c = items.take(thread)) >= 0;)
            network_->functions->run(workspace_, &view_, 0, thread, phase, 0, c * step,
                                     (int)std::min(step, n - c * step));
    };
    if (is_alone) work(0);
    else pool_.run(work);
    next_phase_++;
}

void Engine::finish(double* energies, double* forces, double* virials) {
    if (next_phase_ != n_phases()) throw Error(ASE_STUDENT_INVALID, "not all phases have run");
    next_phase_ = -1;
    std::copy(energies_.begin(), energies_.end(), energies);
    std::copy(forces_.begin(), forces_.end(), forces);
    if (virials) std::copy(virials_.begin(), virials_.end(), virials);
    double total = 0;
    for (double energy : energies_) total += energy;
    for (double force : forces_) total += force;
    if (!std::isfinite(total))
        throw Error(ASE_STUDENT_NOT_FINITE,
                    "energy or forces are not finite: atoms are on one spot or far too close");
}

}  // namespace ase
