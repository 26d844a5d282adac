// The C interface: checks arguments, and turns exceptions into statuses.
#include <algorithm>
#include <cstdio>
#include <memory>
#include <new>
#include <string>
#include <thread>
#include <vector>

#include "engine.h"
#include "error.h"
#include "instruction_sets.h"

struct ase_student {
    std::unique_ptr<ase::Engine> engine;
    std::string error, isa;
};

namespace {

using ase::require;

// Why the last opening in this thread failed.
thread_local std::string opening_error;

// Run an action; if it throws, store the reason and return the status.
template <class Action>
ase_student_status guarded(std::string& message, Action action) {
    try {
        message.clear();
        action();
        return ASE_STUDENT_OK;
    } catch (const ase::Error& error) {
        message = error.what();
        return error.status;
    } catch (const std::bad_alloc&) {
        message = "there is not enough memory";
        return ASE_STUDENT_MEMORY;
    } catch (const std::exception& error) {
        message = error.what();
        return ASE_STUDENT_INVALID;
    }
}

ase_student* new_handle(std::shared_ptr<const ase::LoadedNetwork> network, int threads) {
    auto handle = std::make_unique<ase_student>();
    handle->isa = network->isa;
    handle->engine = std::make_unique<ase::Engine>(std::move(network), threads);
    return handle.release();
}

std::vector<char> content_of(const char* path) {
    std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(path, "rb"), std::fclose);
    if (!file)
        throw ase::Error(ASE_STUDENT_FILE, std::string("cannot open '") + path + "'");
    std::vector<char> bytes;
    char block[1 << 16];
    for (size_t n; (n = std::fread(block, 1, sizeof block, file.get())) > 0;)
        bytes.insert(bytes.end(), block, block + n);
    if (std::ferror(file.get()))
        throw ase::Error(ASE_STUDENT_FILE, std::string("cannot read '") + path + "'");
    return bytes;
}

}  // namespace

extern "C" {

const char* ase_student_version(void) { return "1.0"; }

const char* ase_student_isas(void) {
    static const std::string names = [] {
        std::string text;
        for (const std::string& name : ase::available_isas())
            text += (text.empty() ? "" : " ") + name;
        return text;
    }();
    return names.c_str();
}

ase_student_status ase_student_open_memory(const void* data, size_t size,
                                           const ase_student_options* options,
                                           ase_student** student) {
    return guarded(opening_error, [&] {
        require(data && student, "data and student must not be NULL");
        *student = nullptr;
        ase_student_options chosen{};
        if (options) chosen = *options;
        require(chosen.precision == 0 || chosen.precision == 32 || chosen.precision == 64,
                "precision must be 32 or 64");
        require(chosen.threads >= 0 && chosen.threads <= 1024, "threads must be 0 to 1024");
        int threads = chosen.threads;
        if (!threads) threads = std::max(1u, std::thread::hardware_concurrency());
        auto network = std::make_shared<const ase::LoadedNetwork>(
            data, size, chosen.precision != 64, chosen.isa ? chosen.isa : "");
        *student = new_handle(std::move(network), threads);
    });
}

ase_student_status ase_student_open_file(const char* path, const ase_student_options* options,
                                         ase_student** student) {
    std::vector<char> bytes;
    const ase_student_status status = guarded(opening_error, [&] {
        require(path && student, "path and student must not be NULL");
        *student = nullptr;
        bytes = content_of(path);
    });
    if (status) return status;
    return ase_student_open_memory(bytes.empty() ? "" : bytes.data(), bytes.size(), options,
                                   student);
}

ase_student_status ase_student_share(const ase_student* student, ase_student** shared) {
    return guarded(opening_error, [&] {
        require(student && shared, "student and shared must not be NULL");
        *shared = new_handle(student->engine->shared_network(), student->engine->threads());
    });
}

void ase_student_close(ase_student* student) { delete student; }

const char* ase_student_last_error(const ase_student* student) {
    return student ? student->error.c_str() : opening_error.c_str();
}

double ase_student_cutoff(const ase_student* student) {
    return student->engine->network().student.cutoff;
}

int32_t ase_student_n_elements(const ase_student* student) {
    return (int32_t)student->engine->network().student.elements.size();
}

void ase_student_elements(const ase_student* student, int32_t* numbers) {
    for (int number : student->engine->network().student.elements) *numbers++ = number;
}

const char* ase_student_isa(const ase_student* student) { return student->isa.c_str(); }

double ase_student_table_error(const ase_student* student) {
    return student->engine->network().table_error;
}

ase_student_status ase_student_set_limits(ase_student* student, const double* distances,
                                          const int32_t* counts, const double* forces) {
    return guarded(student->error, [&] {
        require((distances && counts && forces) || (!distances && !counts && !forces),
                "distances, counts and forces must all be given, or all be NULL");
        student->engine->set_limits(distances, counts, forces);
    });
}

ase_student_status ase_student_set_usual(ase_student* student, const ase_student_usual* usual) {
    return guarded(student->error, [&] { student->engine->set_usual(usual); });
}

ase_student_status ase_student_compute(ase_student* student,
                                       const ase_student_structures* structures,
                                       ase_student_results* results) {
    return guarded(student->error, [&] {
        require(structures && results, "structures and results must not be NULL");
        require(structures->n_atoms && structures->numbers && structures->positions,
                "n_atoms, numbers and positions must not be NULL");
        require(structures->cells || !structures->pbc, "periodic structures need cells");
        require(results->energies && results->forces, "energies and forces must not be NULL");
        student->engine->compute(*structures, *results);
    });
}

ase_student_status ase_student_set_list(ase_student* student, int64_t n_atoms, int64_t n_ghosts,
                                        const int64_t* numbers, const int64_t* rows,
                                        const int64_t* neighbors, const double* shifts) {
    return guarded(student->error, [&] {
        require(numbers && rows && (neighbors || (n_atoms > 0 && rows[n_atoms] == 0)),
                "numbers, rows and neighbors must not be NULL");
        student->engine->set_list(n_atoms, n_ghosts, numbers, rows, neighbors, shifts);
    });
}

ase_student_status ase_student_set_cell(ase_student* student, const double* cell) {
    return guarded(student->error, [&] {
        require(cell, "cell must not be NULL");
        student->engine->set_cell(cell);
    });
}

int32_t ase_student_n_phases(const ase_student* student) { return student->engine->n_phases(); }

ase_student_status ase_student_begin(ase_student* student, const double* positions) {
    return guarded(student->error, [&] {
        require(positions, "positions must not be NULL");
        student->engine->begin(positions);
    });
}

ase_student_status ase_student_exchange(ase_student* student, int32_t phase, void** rows,
                                        int64_t* bytes) {
    return guarded(student->error, [&] {
        require(rows && bytes, "rows and bytes must not be NULL");
        student->engine->exchange(phase, rows, bytes);
    });
}

ase_student_status ase_student_phase(ase_student* student, int32_t phase) {
    return guarded(student->error, [&] { student->engine->run_phase(phase); });
}

ase_student_status ase_student_finish(ase_student* student, double* energies, double* forces,
                                      double* virials) {
    return guarded(student->error, [&] {
        require(energies && forces, "energies and forces must not be NULL");
        student->engine->finish(energies, forces, virials);
    });
}

ase_student_status ase_student_evaluate(ase_student* student, const double* positions,
                                        double* energies, double* forces, double* virials) {
    ase_student_status status = ase_student_begin(student, positions);
    const int n = ase_student_n_phases(student);
    for (int phase = 0; phase < n && !status; phase++) status = ase_student_phase(student, phase);
    return status ? status : ase_student_finish(student, energies, forces, virials);
}

}  // extern "C"
