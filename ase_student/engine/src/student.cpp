#include "student.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <set>
#include <stdexcept>

#include "elements.h"
#include "error.h"
#include "json.h"

namespace ase {
namespace {

// Larger than the widths of any trained student: they limit the memory that a damaged file takes.
constexpr int WIDEST = 8192, MOST_BLOCKS = 64;
constexpr double LARGEST_CUTOFF = 100.0;

[[noreturn]] void damaged(const std::string& reason) { throw Error(ASE_STUDENT_FILE, reason); }

struct Tensor {
    std::string type;
    std::vector<size_t> shape;
    const char* data = nullptr;
    size_t size = 0;  // how many numbers
};

double from_half(uint16_t bits) {
    const int exponent = bits >> 10 & 31, mantissa = bits & 1023;
    const double sign = bits >> 15 ? -1.0 : 1.0;
    if (exponent == 31) return mantissa ? std::nan("") : sign * HUGE_VAL;
    if (exponent == 0) return sign * std::ldexp((double)mantissa, -24);
    return sign * std::ldexp((double)(mantissa + 1024), exponent - 25);
}

std::string shape_text(const std::vector<size_t>& shape) {
    std::string text = "(";
    for (size_t q = 0; q < shape.size(); q++) text += (q ? ", " : "") + std::to_string(shape[q]);
    return text + (shape.size() == 1 ? ",)" : ")");
}

size_t whole(const Json& value, const std::string& what) {
    if (value.kind != Json::NUMBER || !(value.number >= 0) || value.number > 9e15 ||
        value.number != std::floor(value.number))
        damaged(what + " is not a whole number");
    return (size_t)value.number;
}

// A safetensors file: the length of the header in 8 bytes, the header in JSON, then the numbers.
class File {
public:
    File(const void* data, size_t size) {
        const char* bytes = (const char*)data;
        if (size < 10) damaged("not a safetensors file, or a truncated one");
        uint64_t length = 0;
        for (int q = 7; q >= 0; q--) length = length << 8 | (unsigned char)bytes[q];
        if (length > size - 8 || bytes[8] != '{')
            damaged("not a safetensors file, or a truncated one");
        Json header;
        try {
            header = Json::parse(bytes + 8, (size_t)length);
        } catch (const std::invalid_argument& error) {
            damaged(std::string("the header is ") + error.what());
        }
        const char* numbers = bytes + 8 + length;
        const size_t n_bytes = size - 8 - (size_t)length;
        for (const auto& [name, entry] : header.object) {
            if (name == "__metadata__") metadata_ = entry;
            else tensors[name] = tensor(name, entry, numbers, n_bytes);
        }
    }

    std::map<std::string, Tensor> tensors;

    Json document() const {
        const Json* text = metadata_.find("ase_student");
        if (!text || text->kind != Json::STRING)
            damaged("a safetensors file, but no student (no 'ase_student')");
        try {
            return Json::parse(text->string.data(), text->string.size());
        } catch (const std::invalid_argument& error) {
            damaged(std::string("the student's metadata are ") + error.what());
        }
    }

private:
    Json metadata_;

    static Tensor tensor(const std::string& name, const Json& entry, const char* numbers,
                         size_t n_bytes) {
        const std::string what = "tensor '" + name + "'";
        const Json *type = entry.find("dtype"), *shape = entry.find("shape"),
                   *offsets = entry.find("data_offsets");
        if (!type || type->kind != Json::STRING || !shape || shape->kind != Json::ARRAY ||
            !offsets || offsets->kind != Json::ARRAY || offsets->array.size() != 2)
            damaged(what + " is described incompletely");
        Tensor result;
        result.type = type->string;
        const size_t width = result.type == "F64"   ? 8
                             : result.type == "F32" ? 4
                             : result.type == "F16" ? 2
                                                    : 0;
        if (!width) damaged(what + " is of " + result.type + "; expected F16, F32 or F64");
        result.size = 1;
        for (const Json& length : shape->array) {
            result.shape.push_back(whole(length, "a length of " + what));
            if (result.shape.back() && result.size > n_bytes / result.shape.back())
                damaged(what + " is larger than the file");
            result.size *= result.shape.back();
        }
        const size_t first = whole(offsets->array[0], "an offset of " + what);
        const size_t last = whole(offsets->array[1], "an offset of " + what);
        if (first > last || last > n_bytes || last - first != result.size * width)
            damaged(what + " has offsets that do not fit its shape or the file");
        result.data = numbers + first;
        return result;
    }
};

int atomic_number(const std::string& symbol) {
    for (int z = 1; z <= N_ELEMENTS; z++)
        if (symbol == SYMBOLS[z]) return z;
    return 0;
}

const Json& member(const Json& object, const std::string& key) {
    const Json* value = object.find(key);
    if (!value) damaged("incomplete student metadata: '" + key + "' is missing");
    return *value;
}

double real(const Json& value, const std::string& what) {
    if (value.kind != Json::NUMBER) damaged(what + " is not a number");
    return value.number;
}

}  // namespace

class StudentReader {
public:
    StudentReader(const void* data, size_t size) : file_(data, size) {
        const Json document = file_.document();
        const Json& version = member(document, "format_version");
        if (version.kind != Json::NUMBER || version.number != 1)
            damaged("another format version; this library reads version 1");
        const Json& family = member(document, "family");
        if (family.kind != Json::STRING || family.string != "painn")
            throw Error(ASE_STUDENT_UNSUPPORTED,
                        "unknown family of networks '" + family.string + "'");
        read_architecture(member(document, "architecture"));
        read_elements(member(document, "reference_energies"));
        read_tensors();
        if (!file_.tensors.empty())
            damaged("the student has tensor '" + file_.tensors.begin()->first +
                    "', which its architecture lacks");
    }

    Student result;

private:
    File file_;

    void read_architecture(const Json& shape) {
        const std::map<std::string, int*> widths = {
            {"features", &result.features},
            {"blocks", &result.blocks},
            {"hidden", &result.hidden},
            {"n_rbf", &result.n_rbf},
            {"element_channels", &result.element_channels},
            {"message_channels", &result.message_channels},
            {"tensor_channels", &result.tensor_channels},
        };
        for (const auto& [name, value] : shape.object) {
            const auto width = widths.find(name);
            if (width != widths.end()) *width->second = limited(value, name);
            else if (name == "cutoff") result.cutoff = real(value, name);
            else if (name == "inner_cutoff") result.inner_cutoff = real(value, name);
            else if (name != "elements") damaged("unknown part of an architecture '" + name + "'");
        }
        for (const auto& [name, value] : widths)
            if (*value < 1 && name != "tensor_channels") damaged(name + " must be at least 1");
        if (result.features % 2) damaged("features must be even");
        if (!(result.cutoff > 0 && result.cutoff <= LARGEST_CUTOFF))
            damaged("the cutoff must be positive, and at most 100 Å");
        if (!(result.inner_cutoff >= 0 && result.inner_cutoff < 1))
            damaged("inner_cutoff must be 0 to 1, 1 excluded");
        for (const Json& number : member(shape, "elements").array) {
            const size_t z = whole(number, "an element");
            if (z < 1 || z > N_ELEMENTS || (!result.elements.empty() &&
                                            (int)z <= result.elements.back()))
                damaged("elements must be atomic numbers 1 to 118, ascending and unique");
            result.elements.push_back((int)z);
        }
        if (result.elements.empty()) damaged("the student knows no element");
    }

    static int limited(const Json& value, const std::string& name) {
        const size_t width = whole(value, name);
        const int largest = name == "blocks" ? MOST_BLOCKS : WIDEST;
        if (width > (size_t)largest) damaged(name + " is too large");
        return (int)width;
    }

    void read_elements(const Json& references) {
        std::map<int, double> by_number;
        for (const auto& [symbol, energy] : references.object)
            by_number[atomic_number(symbol)] = real(energy, "a reference energy");
        const double bohr = 0.5291772105638411, hartree = 27.211386024367243;
        double shortest = HUGE_VAL;
        for (int z : result.elements) {
            const auto energy = by_number.find(z);
            const std::string symbol = SYMBOLS[z];
            if (energy == by_number.end()) damaged("no reference energy for " + symbol);
            if (!std::isfinite(energy->second))
                damaged("the reference energy of " + symbol + " is not finite");
            result.reference.push_back(energy->second);
            // Rounded to float32, as in every other backend.
            result.charge.push_back((float)(z * std::sqrt(hartree * bohr)));
            result.screening.push_back((float)(std::pow(z, 0.23) / (0.8854 * bohr)));
            result.radius.push_back((float)covalent_radius(z));
            shortest = std::min(shortest, 2.0 * result.radius.back());
        }
        result.functions.cutoff = result.cutoff;
        result.functions.shortest =
            std::min(result.inner_cutoff * shortest * 0.999, result.cutoff / 2);
    }

    std::vector<double> take(const std::string& name, std::vector<size_t> shape) {
        const auto place = file_.tensors.find(name);
        if (place == file_.tensors.end())
            damaged("the student lacks tensor '" + name + "' of shape " + shape_text(shape));
        const Tensor tensor = place->second;
        file_.tensors.erase(place);
        if (tensor.shape != shape)
            damaged("tensor '" + name + "' has shape " + shape_text(tensor.shape) +
                    "; expected " + shape_text(shape));
        std::vector<double> numbers(tensor.size);
        for (size_t q = 0; q < tensor.size; q++) {
            if (tensor.type == "F64") {
                memcpy(&numbers[q], tensor.data + 8 * q, 8);
            } else if (tensor.type == "F32") {
                float number;
                memcpy(&number, tensor.data + 4 * q, 4);
                numbers[q] = number;
            } else {
                uint16_t bits;
                memcpy(&bits, tensor.data + 2 * q, 2);
                numbers[q] = from_half(bits);
            }
            if (!std::isfinite(numbers[q]))
                damaged("tensor '" + name + "' has values that are not finite");
        }
        return numbers;
    }

    void read_tensors() {
        const size_t S = result.elements.size(), F = result.features, H = result.hidden,
                     R = result.n_rbf, C = result.element_channels, M = result.message_channels,
                     T = result.tensor_channels;
        result.functions.centers = take("basis.centers", {R});
        result.functions.inverse_widths = take("basis.inverse_widths", {R});
        result.channels_ = take("first.channels", {S, C});
        result.embedding_ = take("first.embedding", {S, F});
        result.first_scalars_ = take("first.scalars.weight", {F, R * C});
        result.first_vectors_ = take("first.vectors.weight", {F, R * C});
        if (T) {
            result.mixes_ = take("first.moments.mixes.weight", {T, R * C});
            result.vector_mixes_ = take("first.moments.vector_mixes.weight", {T, F});
            result.moment_scalars_ = take("first.moments.scalars.weight", {F, T});
            result.moment_vectors_ = take("first.moments.vectors.weight", {F, T});
        }
        for (int u = 0; u < result.blocks; u++) {
            const std::string name = "updates." + std::to_string(u) + ".";
            const size_t n_out = (u == result.blocks - 1 ? 2 : 3) * F;
            Student::Update update;
            update.mixes = take(name + "mixes.weight", {2 * F, F});
            update.first = take(name + "gates.first.weight", {H, 2 * F});
            update.first_bias = take(name + "gates.first.bias", {H});
            update.second = take(name + "gates.second.weight", {n_out, H});
            update.second_bias = take(name + "gates.second.bias", {n_out});
            result.updates_.push_back(std::move(update));
        }
        for (int l = 0; l < result.blocks - 1; l++) {
            const std::string name = "interactions." + std::to_string(l) + ".";
            Student::Interaction interaction;
            interaction.first = take(name + "senders.first.weight", {H, F});
            interaction.first_bias = take(name + "senders.first.bias", {H});
            interaction.second = take(name + "senders.second.weight", {3 * M, H});
            interaction.second_bias = take(name + "senders.second.bias", {3 * M});
            interaction.vector_senders = take(name + "vector_senders.weight", {M, F});
            interaction.filters = take(name + "filters", {3, R, M});
            interaction.scalars = take(name + "scalars.weight", {F, M});
            interaction.vectors = take(name + "vectors.weight", {F, M});
            result.interactions_.push_back(std::move(interaction));
        }
        result.readout_first_ = take("readout.first.weight", {F / 2, F});
        result.readout_first_bias_ = take("readout.first.bias", {F / 2});
        result.readout_second_ = take("readout.second.weight", {1, F / 2});
        result.readout_second_bias_ = take("readout.second.bias", {1});
    }
};

Student Student::read(const void* data, size_t size) { return StudentReader(data, size).result; }

NetworkWeights Student::weights() const {
    update_weights_.clear();
    interaction_weights_.clear();
    for (const Update& u : updates_)
        update_weights_.push_back({u.mixes.data(), u.first.data(), u.first_bias.data(),
                                   u.second.data(), u.second_bias.data()});
    for (const Interaction& i : interactions_)
        interaction_weights_.push_back({i.first.data(), i.first_bias.data(), i.second.data(),
                                        i.second_bias.data(), i.vector_senders.data(),
                                        i.filters.data(), i.scalars.data(), i.vectors.data()});
    NetworkWeights w{};
    w.n_elements = (int)elements.size();
    w.features = features, w.blocks = blocks, w.hidden = hidden, w.n_rbf = n_rbf;
    w.element_channels = element_channels, w.message_channels = message_channels;
    w.tensor_channels = tensor_channels, w.cutoff = cutoff, w.inner_cutoff = inner_cutoff;
    w.channels = channels_.data(), w.embedding = embedding_.data();
    w.first_scalars = first_scalars_.data(), w.first_vectors = first_vectors_.data();
    w.moment_mixes = mixes_.data(), w.moment_vector_mixes = vector_mixes_.data();
    w.moment_scalars = moment_scalars_.data(), w.moment_vectors = moment_vectors_.data();
    w.updates = update_weights_.data(), w.interactions = interaction_weights_.data();
    w.readout_first = readout_first_.data(), w.readout_first_bias = readout_first_bias_.data();
    w.readout_second = readout_second_.data(), w.readout_second_bias = readout_second_bias_.data();
    w.reference = reference.data(), w.charge = charge.data();
    w.screening = screening.data(), w.radius = radius.data();
    return w;
}

double Student::operations_per_atom() const {
    const double F = features, H = hidden, M = message_channels, T = tensor_channels;
    const double moments = 2.0 * n_rbf;
    const double first = moments * (4 * F + 5 * T) + 7 * F * T;
    const double update = 6 * F * F + 5 * F * H;
    const double interaction = F * H + 3 * H * M + 7 * F * M;
    return 4 * (first + blocks * update + (blocks - 1) * interaction + F * F / 2);
}

double Student::operations_per_pair() const {
    const double first = n_rbf * (40.0 + (tensor_channels ? 40 : 0));
    return first + (blocks - 1) * 110.0 * message_channels + 100;
}

}  // namespace ase
