// A step of SOAP (Vyas et al., ICLR 2025, arXiv:2409.11321) for one weight, between two changes of
// its eigenbases.
//
// A weight is (slices, rows, columns): a matrix is one slice, a vector one row without bases. The
// gradient's mean in the eigenbases follows from projected gradients, since projection is linear;
// after a change of the bases, the mean must be projected again.

#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

#include "matrix.h"

namespace soap {

using matrix::padded;

// A row of the table of soap.py; null if an axis has no basis.
struct Weight {
    std::int64_t slices, rows, columns;
    const float* gradient;
    float *values, *mean, *mean_square, *projected_mean;
    const float *basis[3];    // (size, size) of each axis, eigenvectors in columns
    float *statistics[3];     // (size, size): means of the gradient's outer products
};

struct Rates {
    float mean, mean_square, statistics;  // 1 - beta
    float epsilon, step, decay;
};

// Buffers of one weight, rows padded.
class Step {
public:
    void run(const Weight& weight, const Rates& rates) {
        w_ = weight;
        slices_ = int(w_.slices), rows_ = int(w_.rows), columns_ = int(w_.columns);
        width_ = padded(columns_);
        size_ = std::size_t(slices_) * rows_ * width_;
        for (auto* buffer : {&gradient_, &one_, &two_}) resize(*buffer, size_ + matrix::WIDTH);
        copy_in(w_.gradient, gradient_.data());
        const float* projected = project(gradient_.data());
        update_moments(projected, rates);
        const float* change = project_back(two_.data());
        std::size_t at = 0;
        for (int row = 0; row < slices_ * rows_; ++row)
            for (int c = 0; c < columns_; ++c, ++at)
                w_.values[at] =
                    (w_.values[at] - rates.step * change[std::size_t(row) * width_ + c]) *
                    rates.decay;
        update_statistics(rates.statistics);
    }

    // The mean in the eigenbases.
    void project_mean(const Weight& weight) {
        w_ = weight;
        slices_ = int(w_.slices), rows_ = int(w_.rows), columns_ = int(w_.columns);
        width_ = padded(columns_);
        size_ = std::size_t(slices_) * rows_ * width_;
        for (auto* buffer : {&gradient_, &one_, &two_}) resize(*buffer, size_ + matrix::WIDTH);
        copy_in(w_.mean, gradient_.data());
        const float* projected = project(gradient_.data());
        std::size_t at = 0;
        for (int row = 0; row < slices_ * rows_; ++row)
            for (int c = 0; c < columns_; ++c)
                w_.projected_mean[at++] = projected[std::size_t(row) * width_ + c];
    }

private:
    Weight w_;
    int slices_ = 0, rows_ = 0, columns_ = 0, width_ = 0;
    std::size_t size_ = 0;
    std::vector<float> gradient_, one_, two_, packed_, product_;

    static void resize(std::vector<float>& buffer, std::size_t size) {
        if (buffer.size() < size) buffer.resize(size);
    }

    void copy_in(const float* from, float* to) const {
        for (int row = 0; row < slices_ * rows_; ++row) {
            for (int c = 0; c < columns_; ++c) *to++ = *from++;
            for (int c = columns_; c < width_; ++c) *to++ = 0.0f;
        }
    }

    // A square matrix, or its transpose, with padded rows.
    const float* pack(const float* from, int size, bool is_transposed) {
        const int width = padded(size);
        if (width == size && !is_transposed) return from;
        resize(packed_, std::size_t(size) * width);
        float* to = packed_.data();
        constexpr int BLOCK = 16;
        for (int first = 0; first < width; first += BLOCK)
            for (int i = 0; i < size; ++i)
                for (int j = first; j < first + BLOCK; ++j)
                    to[std::size_t(i) * width + j] =
                        j >= size ? 0.0f
                                  : from[is_transposed ? std::size_t(j) * size + i
                                                       : std::size_t(i) * size + j];
        return to;
    }

    float* other(const float* buffer) { return buffer == one_.data() ? two_.data() : one_.data(); }

    // Multiplies every axis by its basis: transposed into the eigenbasis, not transposed out of it.
    const float* rotate(const float* x, bool is_transposed) {
        const int row = rows_ * width_;
        const auto strided = [&](const float* basis, int size) {
            return is_transposed ? matrix::Strided{basis, 1, size} : matrix::Strided{basis, size, 1};
        };
        if (w_.basis[0] != nullptr) {
            float* y = other(x);
            matrix::multiply(slices_, row, slices_, strided(w_.basis[0], slices_), x, row, y, row,
                             nullptr, 0);
            x = y;
        }
        if (w_.basis[1] != nullptr) {
            float* y = other(x);
            for (int s = 0; s < slices_; ++s)
                matrix::multiply(rows_, width_, rows_, strided(w_.basis[1], rows_), x + s * row,
                                 width_, y + s * row, width_, nullptr, 0);
            x = y;
        }
        if (w_.basis[2] != nullptr) {
            float* y = other(x);
            const float* basis = pack(w_.basis[2], columns_, !is_transposed);
            matrix::multiply(slices_ * rows_, width_, columns_, {x, width_, 1}, basis, width_, y,
                             width_, nullptr, 0);
            x = y;
        }
        return x;
    }

    const float* project(const float* x) { return rotate(x, true); }
    const float* project_back(const float* x) { return rotate(x, false); }

    // Writes the normalized mean to `two_`.
    void update_moments(const float* projected, const Rates& rates) {
        std::size_t at = 0;
        for (int row = 0; row < slices_ * rows_; ++row)
            for (int c = 0; c < columns_; ++c, ++at) {
                const std::size_t from = std::size_t(row) * width_ + c;
                const float g = projected[from];
                w_.mean[at] += rates.mean * (gradient_[from] - w_.mean[at]);
                w_.projected_mean[at] += rates.mean * (g - w_.projected_mean[at]);
                w_.mean_square[at] += rates.mean_square * (g * g - w_.mean_square[at]);
                two_[from] =
                    w_.projected_mean[at] / (std::sqrt(w_.mean_square[at]) + rates.epsilon);
            }
        for (int row = 0; row < slices_ * rows_; ++row)
            for (int c = columns_; c < width_; ++c) two_[std::size_t(row) * width_ + c] = 0.0f;
    }

    void update_statistics(float rate) {
        const float* g = gradient_.data();
        const int row = rows_ * width_;
        if (w_.statistics[0] != nullptr) {
            for (int a = 0; a < slices_; ++a)
                for (int b = 0; b < slices_; ++b) {
                    float total = 0;
                    for (int k = 0; k < row; ++k) total += g[a * row + k] * g[b * row + k];
                    float& mean = w_.statistics[0][a * slices_ + b];
                    mean += rate * (total - mean);
                }
        }
        if (w_.statistics[1] != nullptr) {
            // g gᵀ, by a transposed copy of each slice.
            const int width = padded(rows_);
            resize(product_, std::size_t(rows_) * width);
            resize(packed_, std::size_t(columns_) * width);
            for (int s = 0; s < slices_; ++s) {
                for (int first = 0; first < width; first += 16)
                    for (int c = 0; c < columns_; ++c)
                        for (int r = first; r < first + 16; ++r)
                            packed_[std::size_t(c) * width + r] =
                                r < rows_ ? g[s * row + std::size_t(r) * width_ + c] : 0.0f;
                matrix::multiply(rows_, width, columns_, {g + s * row, width_, 1}, packed_.data(),
                                 width, product_.data(), width, s ? product_.data() : nullptr,
                                 width);
            }
            approach(w_.statistics[1], rows_, width, rate);
        }
        if (w_.statistics[2] != nullptr) {
            resize(product_, std::size_t(columns_) * width_);
            matrix::multiply(columns_, width_, slices_ * rows_, {g, 1, width_}, g, width_,
                             product_.data(), width_, nullptr, 0);
            approach(w_.statistics[2], columns_, width_, rate);
        }
    }

    void approach(float* mean, int size, int width, float rate) const {
        for (int i = 0; i < size; ++i)
            for (int j = 0; j < size; ++j) {
                float& value = mean[std::size_t(i) * size + j];
                value += rate * (product_[std::size_t(i) * width + j] - value);
            }
    }
};

}  // namespace soap
