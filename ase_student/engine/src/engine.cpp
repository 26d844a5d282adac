#include "engine.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "error.h"

namespace ase {
namespace {

// With fewer operations than this for each thread, waking a thread costs more time than it saves.
constexpr double OPERATIONS_PER_THREAD = 1.5e7;
// Atomic numbers are below this.
constexpr int N_NUMBERS = 120;

}  // namespace

Engine::Engine(std::shared_ptr<const LoadedNetwork> network, int threads)
    : network_(std::move(network)), pool_(threads) {
    workspace_ = network_->functions->create_workspace(network_->weights);
    require_memory(workspace_);
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

// Set the atoms' elements. If they have changed, the list is invalid.
void Engine::set_numbers(const int64_t* numbers, int64_t n) {
    if ((int64_t)numbers_.size() == n && has_list_ &&
        !memcmp(numbers_.data(), numbers, sizeof(int64_t) * n))
        return;
    const Student& student = network_->student;
    int index_of[N_NUMBERS];
    std::fill_n(index_of, N_NUMBERS, -1);
    for (size_t e = 0; e < student.elements.size(); e++) index_of[student.elements[e]] = (int)e;
    std::vector<int> elements(n), present;
    for (int64_t i = 0; i < n; i++) {
        const int index = numbers[i] >= 0 && numbers[i] < N_NUMBERS ? index_of[numbers[i]] : -1;
        if (index < 0)
            invalid("atom " + std::to_string(i) + " has atomic number " +
                    std::to_string(numbers[i]) + ", which the student does not know");
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

// Make a view of a new list, decide how it is run, and allocate the memory for it.
void Engine::prepare_list() {
    list_.fill(view_);
    view_.present = present_.data();
    view_.n_ghosts = n_ghosts_;
    prepare_limits();
    const size_t n = (size_t)view_.n_atoms;
    energies_.resize(n);
    forces_.resize(3 * n);
    virials_.resize(9 * n);
    outside_.resize(n);
    view_.energies = energies_.data();
    view_.forces = forces_.data();
    view_.virials = virials_.data();
    view_.outside = outside_.data();
    choose_threads();
}

// Write the limits of the elements of the list, in the form that the network reads.
void Engine::prepare_limits() {
    view_.nearest_squared = nullptr;
    view_.largest_force_squared = nullptr;
    view_.neighbor_counts = nullptr;
    if (!is_limited_) return;
    const size_t n_present = present_.size(), n_elements = network_->student.elements.size();
    present_distances_.resize(n_present * n_present);
    present_forces_.resize(n_present);
    present_counts_.resize(2 * n_present);
    for (size_t a = 0; a < n_present; a++) {
        const size_t own = (size_t)present_[a];
        for (size_t b = 0; b < n_present; b++) {
            const double limit = limit_distances_[own * n_elements + (size_t)present_[b]];
            present_distances_[a * n_present + b] = limit * limit;
        }
        present_forces_[a] = limit_forces_[own] * limit_forces_[own];
        for (size_t c = 0; c < 2; c++) present_counts_[2 * a + c] = limit_counts_[2 * own + c];
    }
    view_.nearest_squared = present_distances_.data();
    view_.largest_force_squared = present_forces_.data();
    view_.neighbor_counts = present_counts_.data();
}

// Choose the number of threads and what they share out, and reserve the workspace for that.
void Engine::choose_threads() {
    const Student& student = network_->student;
    const double operations = (double)view_.n_atoms * student.operations_per_atom() +
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
    require_memory(network_->functions->prepare(workspace_, &view_, by_groups_ ? n_threads_ : 1,
                                                n_threads_, most_atoms, most_places));
}

// The number of atoms in a chunk: all chunks are of about equal size, and there is at least one for
// each thread.
int64_t Engine::chunk_size(int64_t n, int n_threads) const {
    int64_t n_chunks = (n + CHUNK - 1) / CHUNK;
    if (n_chunks < 8 * n_threads) n_chunks = (n_chunks + n_threads - 1) / n_threads * n_threads;
    return std::max<int64_t>(1, (n + n_chunks - 1) / std::max<int64_t>(1, n_chunks));
}

}  // namespace ase
