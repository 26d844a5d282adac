// Run an exported TorchScript file with libtorch: energy, forces and stress of one structure.
//
//   run_student tiny.pt structure.xyz
//
// The structure is in extended XYZ: number of atoms; a comment with Lattice="9 numbers" and
// pbc="T T F", or neither; element and position of each atom. Units: eV and Å.

#include <torch/script.h>

#include <array>
#include <fstream>
#include <iostream>
#include <sstream>
#include <string>
#include <vector>

using Vector = std::array<double, 3>;

struct Structure {
  std::vector<int64_t> numbers;
  std::vector<Vector> positions;
  std::array<Vector, 3> cell{};  // zero along axes that are not periodic
};

int64_t atomic_number(const std::string& symbol) {
  std::istringstream symbols("H He Li Be B C N O F Ne Na Mg Al Si P S Cl Ar");  // and so on
  std::string known;
  for (int64_t number = 1; symbols >> known; ++number)
    if (known == symbol) return number;
  throw std::runtime_error("unknown element '" + symbol + "'");
}

// What stands between the quotes of key="..." in a comment.
std::istringstream quoted(const std::string& comment, const std::string& key) {
  const auto start = comment.find(key + "=\"");
  if (start == std::string::npos) return {};
  const auto first = start + key.size() + 2;
  return std::istringstream(comment.substr(first, comment.find('"', first) - first));
}

Structure read_xyz(const char* path) {
  std::ifstream file(path);
  std::string line, symbol, flag;
  size_t n_atoms = 0;
  if (!(file >> n_atoms) || n_atoms == 0) throw std::runtime_error("not an XYZ file");
  std::getline(file, line);
  std::getline(file, line);
  Structure structure;
  auto lattice = quoted(line, "Lattice"), pbc = quoted(line, "pbc");
  for (auto& vector : structure.cell) {
    for (auto& component : vector) lattice >> component;
    if (!(pbc >> flag) || flag != "T") vector = {};
  }
  Vector position;
  for (size_t atom = 0; atom < n_atoms && std::getline(file, line); ++atom) {
    std::istringstream fields(line);
    if (!(fields >> symbol >> position[0] >> position[1] >> position[2])) break;
    structure.numbers.push_back(atomic_number(symbol));
    structure.positions.push_back(position);
  }
  if (structure.numbers.size() < n_atoms) throw std::runtime_error("atoms are missing");
  return structure;
}

// How many cells away an image of an atom can be a neighbor, along each axis.
std::array<int, 3> reach(const torch::Tensor& positions, const torch::Tensor& cell, double cutoff) {
  // Columns are as long as one over the distance of lattice planes, and zero along axes that are
  // not periodic; atoms may be outside the cell.
  const auto to_fractions = torch::linalg_pinv(cell, 1e-12);
  const auto fractions = positions.matmul(to_fractions);
  const auto spread = fractions.amax(0) - fractions.amin(0);
  const auto cells = (cutoff * to_fractions.norm(2, 0) + spread).ceil();
  return {cells[0].item<int>(), cells[1].item<int>(), cells[2].item<int>()};
}

using Neighbors = std::vector<std::pair<int64_t, Vector>>;  // index and offset

// All pairs closer than the cutoff, in both directions, periodic images included, by trying all.
std::vector<Neighbors> find_neighbors(const Structure& structure, const std::array<int, 3>& cells,
                                      double cutoff) {
  const auto& [numbers, positions, cell] = structure;
  std::vector<Neighbors> found(positions.size());
  for (int a = -cells[0]; a <= cells[0]; ++a)
    for (int b = -cells[1]; b <= cells[1]; ++b)
      for (int c = -cells[2]; c <= cells[2]; ++c)
        for (size_t i = 0; i < found.size(); ++i)
          for (size_t j = 0; j < found.size(); ++j) {
            Vector offset;
            double square = 0.0;
            for (int x = 0; x < 3; ++x) {
              offset[x] = a * cell[0][x] + b * cell[1][x] + c * cell[2][x];
              const double r = positions[j][x] - positions[i][x] + offset[x];
              square += r * r;
            }
            if (square > 0.0 && square < cutoff * cutoff) found[i].emplace_back(j, offset);
          }
  return found;
}

void print(const char* label, const torch::Tensor& rows) {
  for (int64_t i = 0; i < rows.size(0); ++i)
    std::cout << label << " " << rows[i][0].item<double>() << " " << rows[i][1].item<double>()
              << " " << rows[i][2].item<double>() << "\n";
}

void run(const char* model_path, const char* structure_path) {
  torch::jit::ExtraFilesMap extra{{"ase_student", ""}};
  auto model = torch::jit::load(model_path, torch::kCPU, extra);
  // The metadata are JSON; a program would use a parser.
  const auto& metadata = extra["ase_student"];
  const double cutoff = std::stod(metadata.substr(metadata.find("\"cutoff\":") + 9));

  auto structure = read_xyz(structure_path);
  const auto n_atoms = static_cast<int64_t>(structure.numbers.size());
  const auto positions = torch::from_blob(structure.positions.data(), {n_atoms, 3}, torch::kDouble);
  const auto cell = torch::from_blob(structure.cell.data(), {3, 3}, torch::kDouble);
  const auto found = find_neighbors(structure, reach(positions, cell, cutoff), cutoff);

  // Unused places hold the atom's own index and an offset beyond the cutoff; there is always one.
  size_t width = 1;
  for (const auto& row : found) width = std::max(width, row.size());
  const auto n_neighbors = static_cast<int64_t>(width);
  auto neighbors = torch::arange(n_atoms).unsqueeze(1).repeat({1, n_neighbors});
  auto offsets = torch::zeros({n_atoms, n_neighbors, 3}, torch::kDouble);
  offsets.select(2, 0).fill_(2.0 * cutoff);
  auto index = neighbors.accessor<int64_t, 2>();
  auto offset = offsets.accessor<double, 3>();
  for (int64_t i = 0; i < n_atoms; ++i)
    for (size_t k = 0; k < found[i].size(); ++k) {
      index[i][k] = found[i][k].first;
      for (int x = 0; x < 3; ++x) offset[i][k][x] = found[i][k].second[x];
    }

  const torch::InferenceMode no_gradients;
  // Specializing the program for the sizes it meets would cost seconds and gain little.
  torch::jit::setGraphExecutorOptimize(false);
  const auto numbers = torch::tensor(structure.numbers);
  const auto outputs = model.forward({numbers, positions, neighbors, offsets}).toTupleRef();
  std::cout.precision(12);
  std::cout << "energy " << outputs.elements()[0].toTensor().sum().item<double>() << "\n";
  print("force", outputs.elements()[1].toTensor());
  const auto volume = torch::linalg_det(cell).abs();
  const auto virial = outputs.elements()[2].toTensor().sum(0, false, torch::kDouble);
  if (volume.item<double>() > 0.0) print("stress", virial / volume);
}

int main(int argc, char** argv) try {
  if (argc != 3) throw std::runtime_error("usage: run_student MODEL.pt STRUCTURE.xyz");
  run(argv[1], argv[2]);
} catch (const c10::Error& error) {
  std::cerr << "error: " << error.what_without_backtrace() << "\n";
  return 1;
} catch (const std::exception& error) {
  std::cerr << "error: " << error.what() << "\n";
  return 1;
}
