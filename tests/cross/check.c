/* check WEIGHTS REFERENCES: compute structures through the engine's C interface and compare.
 *
 * The references are those of tests/cross/references.py. Exits with 1 if a number in float32 or
 * float64 differs by more than tests/test_engine.py allows. */
#include <math.h>
#include <stdio.h>

#include "ase_student.h"

#define MOST_ATOMS 1000

typedef struct {
    int64_t n_atoms, numbers[MOST_ATOMS];
    uint8_t pbc[3];
    double cell[9], positions[3 * MOST_ATOMS];
    double energies[MOST_ATOMS], forces[3 * MOST_ATOMS], virial[9];
} reference;

/* eV an atom, eV/Å, eV an atom; relative to the largest force where that exceeds 10 eV/Å. */
typedef struct {
    int32_t precision;
    double energies, forces, virials;
} bars;

static const bars BARS[] = {{32, 1e-5, 3e-5, 1e-4}, {64, 1e-9, 1e-9, 1e-9}};

static int read_numbers(FILE* file, double* values, int n) {
    for (int i = 0; i < n; i++)
        if (fscanf(file, "%lf", values + i) != 1) return 0;
    return 1;
}

static int read_structure(FILE* file, reference* r) {
    double n, pbc[3], number;
    if (!read_numbers(file, &n, 1) || n < 1 || n > MOST_ATOMS) return 0;
    if (!read_numbers(file, pbc, 3) || !read_numbers(file, r->cell, 9)) return 0;
    if (!read_numbers(file, r->virial, 9)) return 0;
    for (int axis = 0; axis < 3; axis++) r->pbc[axis] = pbc[axis] != 0;
    r->n_atoms = (int64_t)n;
    for (int64_t i = 0; i < r->n_atoms; i++) {
        if (!read_numbers(file, &number, 1) || !read_numbers(file, r->positions + 3 * i, 3) ||
            !read_numbers(file, r->energies + i, 1) || !read_numbers(file, r->forces + 3 * i, 3))
            return 0;
        r->numbers[i] = (int64_t)number;
    }
    return 1;
}

/* NaN counts as the largest difference. */
static double largest_difference(const double* a, const double* b, int64_t n) {
    double largest = 0;
    for (int64_t i = 0; i < n; i++) {
        const double difference = fabs(a[i] - b[i]);
        if (isnan(difference)) return INFINITY;
        if (difference > largest) largest = difference;
    }
    return largest;
}

/* Differences as parts of what is allowed; negative if nothing could be computed. */
static double compare(ase_student* student, const reference* r, const bars* bar, double skin) {
    static double energies[MOST_ATOMS], forces[3 * MOST_ATOMS];
    double virial[9], largest_force = 0;
    const ase_student_structures structures = {1,       &r->n_atoms, r->numbers, r->positions,
                                               r->cell, r->pbc,      skin};
    ase_student_results results = {energies, forces, virial, NULL, 0, 0, NULL};
    if (ase_student_compute(student, &structures, &results)) {
        fprintf(stderr, "%s\n", ase_student_last_error(student));
        return -1;
    }
    for (int64_t i = 0; i < 3 * r->n_atoms; i++)
        largest_force = fmax(largest_force, fabs(r->forces[i]));
    const double scale = fmax(1, largest_force / 10);
    const double parts[] = {
        largest_difference(energies, r->energies, r->n_atoms) / bar->energies,
        largest_difference(forces, r->forces, 3 * r->n_atoms) / bar->forces,
        largest_difference(virial, r->virial, 9) / (bar->virials * (double)r->n_atoms)};
    return fmax(parts[0], fmax(parts[1], parts[2])) / scale;
}

static int check(const char* weights, const char* path, const bars* bar) {
    static reference r;
    const ase_student_options options = {bar->precision, 2, NULL};
    ase_student* student;
    double largest = 0, n_structures;
    FILE* file = fopen(path, "r");
    if (!file || !read_numbers(file, &n_structures, 1) || n_structures < 1)
        return fprintf(stderr, "'%s' holds no references\n", path), 1;
    if (ase_student_open_file(weights, &options, &student))
        return fprintf(stderr, "%s\n", ase_student_last_error(NULL)), 1;
    for (int i = 0; i < n_structures; i++) {
        if (!read_structure(file, &r))
            return fprintf(stderr, "'%s' is damaged in structure %d\n", path, i), 1;
        for (int with_skin = 0; with_skin < 2; with_skin++) {
            const double part = compare(student, &r, bar, 0.5 * with_skin);
            if (part < 0) return 1;
            if (part > 1) fprintf(stderr, "structure %d: %.1f times what is allowed\n", i, part);
            largest = fmax(largest, part);
        }
    }
    printf("%s, float%d: %.0f structures, at most %.3f of the difference that is allowed\n",
           ase_student_isa(student), (int)bar->precision, n_structures, largest);
    ase_student_close(student);
    fclose(file);
    return !(largest <= 1);
}

int main(int argc, char** argv) {
    int failures = 0;
    if (argc != 3) return fprintf(stderr, "usage: check WEIGHTS REFERENCES\n"), 2;
    for (size_t i = 0; i < sizeof BARS / sizeof *BARS; i++)
        failures += check(argv[1], argv[2], BARS + i);
    return failures > 0;
}
