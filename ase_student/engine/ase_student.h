/* ase_student.h: energies, forces and virials of students, in C.
 *
 * Lengths are in Å, energies in eV. Matrices are row by row; rows of a cell are its vectors.
 *
 * A handle holds a student, a neighbor list and the memory for both. Different threads may use
 * different handles at the same time; one handle serves one thread at a time. Functions that can
 * fail return a status, and ase_student_last_error returns the reason in one sentence. After any
 * failure except ASE_STUDENT_MEMORY the handle can be used as before.
 *
 * The whole step:
 *
 *     ase_student* student;
 *     if (ase_student_open_file("weights.safetensors", NULL, &student)) ...
 *     ase_student_structures water = {1, &n_atoms, numbers, positions, cell, pbc, 0.5};
 *     ase_student_results results = {energies, forces, virial, NULL, 0, 0, NULL};
 *     if (ase_student_compute(student, &water, &results)) ...
 *     ase_student_close(student);
 *
 * Callers with a neighbor list of their own pass it to ase_student_set_list instead, and call
 * ase_student_evaluate, or the phases of an evaluation one by one.
 */
#ifndef ASE_STUDENT_H
#define ASE_STUDENT_H

#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32)
#define ASE_STUDENT_API __declspec(dllexport)
#else
#define ASE_STUDENT_API __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

typedef enum {
    ASE_STUDENT_OK = 0,
    ASE_STUDENT_INVALID = 1,     /* an invalid argument or structure; nothing was computed */
    ASE_STUDENT_FILE = 2,        /* not the file of a student, or a damaged one */
    ASE_STUDENT_UNSUPPORTED = 3, /* a student that this library cannot run */
    ASE_STUDENT_MEMORY = 4,      /* there is not enough memory */
    ASE_STUDENT_NOT_FINITE = 5   /* energies or forces are not finite: atoms are far too close */
} ase_student_status;

typedef struct ase_student ase_student;

typedef struct {
    int32_t precision; /* of the network in bits: 32 or 64; 0: 32. Sums are always in 64. */
    int32_t threads;   /* most threads; 0: one for each processor that the process may use */
    const char* isa;   /* instruction set; NULL: the best of this processor, see ase_student_isas */
} ase_student_options;

/* Version of this library. Its first number is the version of this interface. */
ASE_STUDENT_API const char* ase_student_version(void);

/* Instruction sets that this processor can run, best first, separated by spaces. */
ASE_STUDENT_API const char* ase_student_isas(void);

/* Open a student's weights.safetensors; `options` may be NULL. `data` may be freed afterwards. */
ASE_STUDENT_API ase_student_status ase_student_open_file(
    const char* path, const ase_student_options* options, ase_student** student);
ASE_STUDENT_API ase_student_status ase_student_open_memory(
    const void* data, size_t size, const ase_student_options* options, ase_student** student);

/* Another handle of the same student. It shares the weights; either may be closed first. */
ASE_STUDENT_API ase_student_status ase_student_share(const ase_student* student,
                                                     ase_student** shared);
ASE_STUDENT_API void ase_student_close(ase_student* student);

/* Why the last call with this handle failed; with NULL, why the last opening in this thread did. */
ASE_STUDENT_API const char* ase_student_last_error(const ase_student* student);

ASE_STUDENT_API double ase_student_cutoff(const ase_student* student);
ASE_STUDENT_API int32_t ase_student_n_elements(const ase_student* student);
/* Atomic numbers that the student knows, ascending. */
ASE_STUDENT_API void ase_student_elements(const ase_student* student, int32_t* numbers);
ASE_STUDENT_API const char* ase_student_isa(const ase_student* student);
/* Largest error of the tabulated radial functions, relative to their largest value or slope. */
ASE_STUDENT_API double ase_student_table_error(const ase_student* student);

/* Set the limits of the training data, by elements in the order of ase_student_elements. Results
 * then report what lies outside. NULL for all three: nothing is compared. */
ASE_STUDENT_API ase_student_status ase_student_set_limits(
    ase_student* student,
    const double* distances, /* (n_elements, n_elements) Å; pairs below these are too close */
    const int32_t* counts,   /* (n_elements, 2) fewest and most neighbors within the cutoff */
    const double* forces);   /* (n_elements) eV/Å, largest force on an atom */

/* Bonds and distances that were common in training, by elements in the same order. Rare bonds and
 * distances are searched for when a neighbor list is built, and reported in the results of that
 * call.
 *
 * Two atoms are bonded if they are closer than `bonded` times the sum of their covalent radii. The
 * order of a pair is exp((sum - distance) / decay), and 0 beyond `reach` times the sum. An atom's
 * environment, which says what it is bonded to, is one whole number: the `atom_keys` of its element
 * plus the `bond_keys` of the element at the other end of each bond. The sum of an atom's orders
 * must lie in the range of its environment; if that is not listed, in the range of its element and
 * number of bonds. Distances within 1e-6 Å of a limit count as outside, so that rounding hides
 * nothing. */
typedef struct {
    const double* radius_sums;   /* (n_elements, n_elements) Å; 0 between elements without bonds */
    double bonded, reach, decay; /* the last in Å */
    int32_t most_bonds;          /* an atom with more bonds lies outside */
    const int64_t* atom_keys;    /* (n_elements) */
    const int64_t* bond_keys;    /* (n_elements) */
    int64_t n_environments;      /* 0: bonds are not compared, and all above may be NULL */
    const int64_t* environments; /* (n_environments), ascending */
    const double* orders;        /* (n_environments, 2) lowest and highest sum of orders */
    const double* other_orders;  /* (n_elements, most_bonds + 1, 2) the same for all others */
    int32_t n_bins;              /* bins of distances, from 0 Å; 0: distances are not compared */
    double bin_width;            /* Å */
    const uint8_t* gaps;         /* (n_elements, n_elements, n_bins), 1 where distances are rare */
} ase_student_usual;

/* NULL: nothing is compared. */
ASE_STUDENT_API ase_student_status ase_student_set_usual(ase_student* student,
                                                         const ase_student_usual* usual);

/* What lies outside of the limits of training: bits of `outside` in ase_student_results. */
enum {
    ASE_STUDENT_TOO_CLOSE = 1,
    ASE_STUDENT_NEIGHBOR_COUNT = 2,
    ASE_STUDENT_LARGE_FORCE = 4,
    ASE_STUDENT_BONDS = 8,
    ASE_STUDENT_CONTACT = 16
};

/* Structures that do not interact with each other. */
typedef struct {
    int64_t n_structures;
    const int64_t* n_atoms;  /* (n_structures), at least 1 each */
    const int64_t* numbers;  /* (total atoms) atomic numbers */
    const double* positions; /* (total atoms, 3), inside or outside of the cell */
    const double* cells;     /* (n_structures, 3, 3); NULL if nothing is periodic */
    const uint8_t* pbc;      /* (n_structures, 3), 0 or 1; NULL if nothing is periodic */
    double skin;             /* Å that lists reach beyond the cutoff, to be reused; may be 0 */
} ase_student_structures;

typedef struct {
    double* energies;     /* (total atoms) */
    double* forces;       /* (total atoms, 3) */
    double* virials;      /* (n_structures, 3, 3): divided by the volume, the stress; may be NULL */
    double* atom_virials; /* (total atoms, 3, 3); may be NULL */
    int32_t outside;      /* out: what lies outside of the limits, as bits, of all structures */
    int32_t rebuilt;      /* out: 1 if the neighbor list was built, 0 if it was reused */
    int32_t* structures_outside; /* (n_structures) the bits of each structure; may be NULL */
} ase_student_results;

/* The whole step: neighbor list, network, sums. With a skin, the list is reused as long as no pair
 * that it lacks can have come within the cutoff, also if the cell changes. */
ASE_STUDENT_API ase_student_status ase_student_compute(ase_student* student,
                                                       const ase_student_structures* structures,
                                                       ase_student_results* results);

/* Set a full list (both directions of every pair) for the calls below.
 *
 * The image of neighbor `neighbors[p]` is translated by `shifts[p]`, in numbers of cell vectors, or
 * in Å if no cell is set. The last `n_ghosts` atoms are ghosts: their rows are empty, and another
 * caller computes them. */
ASE_STUDENT_API ase_student_status ase_student_set_list(
    ase_student* student, int64_t n_atoms, int64_t n_ghosts, const int64_t* numbers,
    const int64_t* rows,      /* (n_atoms + 1), where each atom's neighbors start, and the end */
    const int64_t* neighbors, /* (rows[n_atoms]) */
    const double* shifts);    /* (rows[n_atoms], 3); may be NULL */

/* Set the cell in which shifts are given. A new list starts with the unit matrix. */
ASE_STUDENT_API ase_student_status ase_student_set_cell(ase_student* student,
                                                        const double* cell);

/* Compute energies (n), forces (n, 3) and virials (n, 3, 3; may be NULL) of the list's atoms. */
ASE_STUDENT_API ase_student_status ase_student_evaluate(ase_student* student,
                                                        const double* positions, double* energies,
                                                        double* forces, double* virials);

/* The same in phases, 0 to ase_student_n_phases - 1, for callers who compute parts of a structure:
 * begin, then every phase in order, then finish. Before a phase, the caller must fill in the rows
 * of the ghosts in the array that ase_student_exchange returns. Row i, of `bytes` bytes, holds what
 * the previous phase has computed for atom i; a ghost's row is a copy of the row in the handle that
 * computes this atom. `rows` is NULL if the phase reads none. Forces on ghosts are contributions
 * that the caller must add to the forces of these atoms where they are computed. */
ASE_STUDENT_API int32_t ase_student_n_phases(const ase_student* student);
ASE_STUDENT_API ase_student_status ase_student_begin(ase_student* student,
                                                     const double* positions);
ASE_STUDENT_API ase_student_status ase_student_exchange(ase_student* student, int32_t phase,
                                                        void** rows, int64_t* bytes);
ASE_STUDENT_API ase_student_status ase_student_phase(ase_student* student, int32_t phase);
ASE_STUDENT_API ase_student_status ase_student_finish(ase_student* student, double* energies,
                                                      double* forces, double* virials);

#ifdef __cplusplus
}
#endif
#endif
