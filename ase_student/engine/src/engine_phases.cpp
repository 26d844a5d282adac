// Evaluations for a caller's neighbor list, phase by phase.
#include <algorithm>
#include <cmath>
#include <string>

#include "engine.h"
#include "error.h"

namespace ase {

void Engine::set_list(int64_t n_atoms, int64_t n_ghosts, const int64_t* numbers,
                      const int64_t* rows, const int64_t* neighbors, const double* shifts) {
    if (n_atoms < 1 || n_ghosts < 0 || n_ghosts >= n_atoms)
        invalid("at least one atom must not be a ghost");
    next_phase_ = -1;
    has_list_ = false;
    set_numbers(numbers, n_atoms);
    for (int64_t i = n_atoms - n_ghosts; i < n_atoms; i++)
        if (rows[i + 1] != rows[i]) invalid("a ghost has neighbors; rows of ghosts must be empty");
    for (int64_t p = 0; p < rows[n_atoms]; p++)
        if (neighbors[p] >= 0 && neighbors[p] < n_atoms - n_ghosts &&
            rows[neighbors[p] + 1] == rows[neighbors[p]])
            invalid("atom " + std::to_string(neighbors[p]) +
                    " is a neighbor of other atoms but has no neighbors");
    list_.set(n_atoms, species_, radii_, (int)present_.size(), rows, neighbors, shifts);
    is_external_ = true;
    n_ghosts_ = n_ghosts;
    prepare_list();
    has_list_ = true;
}

void Engine::set_cell(const double* cell) {
    if (!has_list_ || !is_external_) invalid("no list was set");
    Matrix matrix;
    std::copy_n(cell, 9, matrix.begin());
    for (double c : matrix)
        if (!std::isfinite(c)) invalid("the cell has components that are not finite");
    list_.set_shift_cell(matrix);
    list_.fill(view_);
}

void Engine::begin(const double* positions) {
    if (!has_list_ || !is_external_) invalid("no list was set");
    next_phase_ = -1;
    list_.take_positions(positions);
    std::fill(forces_.begin(), forces_.end(), 0.0);
    std::fill(virials_.begin(), virials_.end(), 0.0);
    std::fill(energies_.begin(), energies_.end(), 0.0);
    next_phase_ = 0;
}

void Engine::exchange(int phase, void** rows, int64_t* bytes) {
    if (!has_list_ || !is_external_ || phase < 0 || phase >= n_phases())
        invalid("there is no such phase");
    const ExchangeView view = network_->functions->exchange(workspace_, phase);
    *rows = view.rows;
    *bytes = view.bytes_per_row;
}

void Engine::run_phase(int phase) {
    if (phase < 0 || phase != next_phase_ || phase >= n_phases())
        invalid("phases must run in order, after begin");
    const int64_t n = view_.n_atoms - view_.n_ghosts;
    // In the last phase many atoms add to the forces on a ghost: one thread does it, in order.
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
    if (next_phase_ != n_phases()) invalid("not all phases have run");
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
