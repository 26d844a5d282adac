// A student that is ready to run.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "../ase_student.h"
#include "neighbors.h"
#include "pool.h"
#include "student.h"
#include "unusual.h"

namespace ase {

// Names of the instruction sets that this processor can run, best first.
std::vector<std::string> available_isas();

// Weights as kernels read them; shared by handles.
class Network {
public:
    Network(const void* data, size_t size, bool single, const std::string& isa);
    ~Network();
    Network(const Network&) = delete;
    Network& operator=(const Network&) = delete;

    Student student;
    double table_error = 0;
    const NetworkFunctions* functions = nullptr;
    void* weights = nullptr;
    std::string isa;
};

class Engine {
public:
    Engine(std::shared_ptr<const Network> network, int threads);
    ~Engine();
    Engine(const Engine&) = delete;
    Engine& operator=(const Engine&) = delete;

    const Network& network() const { return *network_; }
    std::shared_ptr<const Network> shared_network() const { return network_; }
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
    void take_numbers(const int64_t* numbers, int64_t n);
    void take_memory();
    void run_all();
    void find_unusual();
    void report_outside(const ase_student_structures& structures,
                        ase_student_results& results) const;
    void run_range(int state, int thread, int phase, int64_t group, int64_t end);
    int64_t chunk_size(int64_t n, int n_threads) const;
    int64_t atoms_per_group() const;

    std::shared_ptr<const Network> network_;
    void* workspace_ = nullptr;
    Pool pool_;
    NeighborList list_;
    ListView view_{};
    bool is_external_ = false, has_list_ = false;
    int64_t n_ghosts_ = 0;
    int next_phase_ = -1;
    std::vector<int64_t> numbers_;
    std::vector<int> present_, species_;
    std::vector<double> radii_;
    std::vector<double> energies_, forces_, virials_;
    std::vector<uint8_t> outside_;  // by place, bits of Outside
    std::vector<uint8_t> unusual_;  // likewise, of the list when it was built; empty if none is
    Usual usual_;
    bool is_limited_ = false;
    std::vector<double> limit_distances_, limit_forces_;
    std::vector<int32_t> limit_counts_;
    std::vector<double> present_distances_, present_forces_;
    std::vector<int> present_counts_;
    // How the list is run.
    bool by_groups_ = false;
    int n_threads_ = 1;
};

}  // namespace ase
