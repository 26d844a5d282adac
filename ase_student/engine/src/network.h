// The interface between the parts of the engine that are compiled once and the network, which is
// compiled for every instruction set and precision: only plain data and functions (see simd.h for
// the reason).
#pragma once

#include <stddef.h>
#include <stdint.h>

extern "C" {
void* ase_aligned_alloc(size_t alignment, size_t bytes);
void ase_aligned_free(void* p);
}

namespace ase {

// Most atoms that go through a phase together.
constexpr int CHUNK = 24;

struct UpdateWeights {
    const double *mixes, *gates_first, *gates_first_bias, *gates_second, *gates_second_bias;
};

struct InteractionWeights {
    const double *senders_first, *senders_first_bias, *senders_second, *senders_second_bias;
    const double *vector_senders, *filters, *scalars, *vectors;
};

// A student's weights, row by row as in its file.
struct NetworkWeights {
    int n_elements, features, blocks, hidden, n_rbf, element_channels, message_channels,
        tensor_channels;
    double cutoff, inner_cutoff;
    const double *channels, *embedding, *first_scalars, *first_vectors;
    const double *moment_mixes, *moment_vector_mixes, *moment_scalars, *moment_vectors;
    const UpdateWeights* updates;
    const InteractionWeights* interactions;
    const double *readout_first, *readout_first_bias, *readout_second, *readout_second_bias;
    // By element: reference energies in eV, and for the repulsion charges in (eV Å)^1/2, inverse
    // screening lengths in 1/Å and covalent radii in Å.
    const double *reference, *charge, *screening, *radius;
};

// Coefficients (knots + degree, n_rbf) of B-splines in x = exp(-rate d), from x = start upwards.
struct SplineView {
    int degree, knots, n_rbf;
    double rate, start, spacing;
    const double* coefficients;
};

// What lies outside of the limits of training, as in ase_student.h.
enum Outside { TOO_CLOSE = 1, NEIGHBOR_COUNT = 2, LARGE_FORCE = 4, BONDS = 8, CONTACT = 16 };

// A neighbor list, in the order in which atoms are computed: group by group, where groups do not
// interact. Each atom has a row of neighbors, sorted by their elements. A place is the index of an
// entry in all rows together, or within one row where that is said.
struct ListView {
    int64_t n_atoms;
    int n_present;               // elements that occur in the list
    const int* present;          // their indices in the student
    const int* species;          // (n_atoms), index into `present`
    const int64_t* rows;         // (n_atoms + 1), where rows start
    const int* segments;         // (n_atoms, n_present + 1), where elements start in the row
    const int* neighbors;        // by place
    const int* images;           // by place, into `translations`
    const int* reverse;          // by place: place of the other direction in the neighbor's row
    const double* positions;     // (n_atoms, 4): x, y, z and covalent radius, Å
    const double* translations;  // (n_images, 4): x, y, z and 0, Å
    int64_t n_ghosts;            // last atoms; their rows are empty, and other callers compute them
    // Limits of training, by pairs of present elements and by element; null if there are none.
    const double* nearest_squared;
    const double* largest_force_squared;
    const int* neighbor_counts;  // (n_present, 2)
    // Results.
    double* energies;  // (n_atoms)
    double* forces;    // (n_atoms, 3)
    double* virials;   // (n_atoms, 9)
    uint8_t* outside;  // (n_atoms), bits of `Outside`
};

// Rows of numbers that callers exchange before a phase, if each computes a part of a structure.
struct ExchangeView {
    void* rows;
    int64_t bytes_per_row;
};

struct NetworkFunctions {
    const char* name;
    int degree;  // of the splines
    size_t state_bytes_per_atom(const void* network) const { return state_bytes(network); }
    // All return null or false if there is not enough memory.
    void* (*create)(const NetworkWeights*, const SplineView*);
    void (*destroy)(void* network);
    size_t (*state_bytes)(const void* network);
    void* (*create_workspace)(const void* network);
    void (*destroy_workspace)(void* workspace);
    // Reserve memory for a list whose largest group has `atoms` atoms and `places` places, of which
    // `n_threads` threads compute `n_states` groups at a time.
    bool (*prepare)(void* workspace, const ListView*, int n_states, int n_threads, int64_t atoms,
                    int64_t places);
    // Run a phase, 0 to 2 * blocks - 1, for the `n` atoms from `first` on, which belong to the
    // group that starts at atom `group`.
    void (*run)(void* workspace, const ListView*, int state, int thread, int phase, int64_t group,
               int64_t first, int n);
    // The rows of the previous phase that ghosts need before a phase; null if it needs none.
    ExchangeView (*exchange)(void* workspace, int phase);
};

}  // namespace ase
