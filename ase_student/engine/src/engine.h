// A student that is ready to run, with its neighbor list and memory.
//
// engine.cpp holds what all evaluations share: elements, limits, memory and threads;
// engine_compute.cpp the whole step for structures, and engine_phases.cpp evaluations for a
// caller's neighbor list, phase by phase.
#pragma once

#include <memory>
#include <vector>

#include "../ase_student.h"
#include "loaded_network.h"
#include "neighbors.h"
#include "pool.h"
#include "unusual.h"

namespace ase {

// Methods are the functions of ase_student.h. They throw Error.
class Engine {
public:
    Engine(std::shared_ptr<const LoadedNetwork> network, int threads);
    ~Engine();
    Engine(const Engine&) = delete;
    Engine& operator=(const Engine&) = delete;

    const LoadedNetwork& network() const { return *network_; }
    std::shared_ptr<const LoadedNetwork> shared_network() const { return network_; }
    int threads() const { return pool_.size(); }

    void set_limits(const double* distances, const int32_t* counts, const double* forces);
    void set_usual(const ase_student_usual* usual);
    void compute(const ase_student_structures& structures, ase_student_results& results);
    void set_list(int64_t n_atoms, int64_t n_ghosts, const int64_t* numbers, const int64_t* rows,
                  const int64_t* neighbors, const double* shifts);
    void set_cell(const double* cell);
    void begin(const double* positions);
    void exchange(int phase, void** rows, int64_t* bytes);
    void run_phase(int phase);
    void finish(double* energies, double* forces, double* virials);
    int n_phases() const { return 2 * network_->student.blocks; }

private:
    // Shared by all evaluations (engine.cpp).
    void set_numbers(const int64_t* numbers, int64_t n);
    void prepare_list();
    void prepare_limits();
    void choose_threads();
    int64_t chunk_size(int64_t n, int n_threads) const;

    // The whole step (engine_compute.cpp).
    int64_t atoms_per_group() const;
    void build_list(const StructuresView& structures, double skin);
    void run_groups();
    void run_phases_together();
    void find_unusual();
    void report_outside(const ase_student_structures& structures,
                        ase_student_results& results) const;
    double report_atoms(ase_student_results& results) const;
    void report_virials(const ase_student_structures& structures,
                        ase_student_results& results) const;

    std::shared_ptr<const LoadedNetwork> network_;
    void* workspace_ = nullptr;
    Pool pool_;
    NeighborList list_;
    ListView view_{};
    bool is_external_ = false, has_list_ = false;
    int64_t n_ghosts_ = 0;
    int next_phase_ = -1;
    std::vector<int64_t> numbers_;
    // Elements of the list as indices in the student; and each atom's element as index in these.
    std::vector<int> present_, species_;
    std::vector<double> radii_;
    std::vector<double> energies_, forces_, virials_;
    std::vector<uint8_t> outside_;  // by place, bits of Outside
    std::vector<uint8_t> unusual_;  // the same for bonds and contacts, of the list when it was
                                    // built; empty if these are not compared
    Usual usual_;
    // Limits by elements of the student, and by elements of the list as the network reads them.
    bool is_limited_ = false;
    std::vector<double> limit_distances_, limit_forces_;
    std::vector<int32_t> limit_counts_;
    std::vector<double> present_distances_, present_forces_;
    std::vector<int> present_counts_;
    // Whether threads take whole groups, or parts of each phase; and how many threads run.
    bool by_groups_ = false;
    int n_threads_ = 1;
};

}  // namespace ase
