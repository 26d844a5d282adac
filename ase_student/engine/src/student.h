// A student as its file holds it.
#pragma once

#include <string>
#include <vector>

#include "network.h"
#include "spline.h"

namespace ase {

class Student {
public:
    // Read weights.safetensors. Throws Error if it is not the valid file of a student.
    static Student read(const void* data, size_t size);

    std::vector<int> elements;  // atomic numbers, ascending
    int features = 64, blocks = 2, hidden = 48, n_rbf = 12, element_channels = 8,
        message_channels = 32, tensor_channels = 0;
    double cutoff = 5.0, inner_cutoff = 0.0;
    std::vector<double> reference, charge, screening, radius;  // by element
    RadialFunctions functions;

    // The weights as pointers into this object.
    NetworkWeights weights() const;

    // Estimates of the multiplications and additions for one atom and for one pair, forward and
    // backward.
    double operations_per_atom() const;
    double operations_per_pair() const;

private:
    struct Update { std::vector<double> mixes, first, first_bias, second, second_bias; };
    struct Interaction {
        std::vector<double> first, first_bias, second, second_bias, vector_senders, filters,
            scalars, vectors;
    };
    std::vector<double> channels_, embedding_, first_scalars_, first_vectors_, mixes_,
        vector_mixes_, moment_scalars_, moment_vectors_, readout_first_, readout_first_bias_,
        readout_second_, readout_second_bias_;
    std::vector<Update> updates_;
    std::vector<Interaction> interactions_;
    mutable std::vector<UpdateWeights> update_weights_;
    mutable std::vector<InteractionWeights> interaction_weights_;
    friend class StudentReader;
};

}  // namespace ase
