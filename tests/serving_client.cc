// Scores serialized requests through the C++ loader in TensorFlow's wheel, the one that TensorFlow Serving runs.
//
//   serving_client MODEL SIGNATURE LISTS_A_CALL < requests > scores
//
// requests: each a little-endian uint64 length and that many bytes of proto.  scores: a line a list, its scores
// separated by spaces; what stands behind a list's end must be the smallest finite float32.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <limits>
#include <string>
#include <vector>

#include "tensorflow/cc/saved_model/loader.h"
#include "tensorflow/core/framework/tensor.h"
#include "tensorflow/core/public/session.h"

namespace tf = tensorflow;

static void Check(const tf::Status& status) {
  if (!status.ok()) {
    std::cerr << status.ToString() << std::endl;
    std::exit(1);
  }
}

int main(int argc, char** argv) {
  if (argc != 4) {
    std::cerr << "usage: serving_client MODEL SIGNATURE LISTS_A_CALL < requests > scores" << std::endl;
    return 2;
  }
  std::vector<std::string> requests;
  for (uint64_t length; std::cin.read(reinterpret_cast<char*>(&length), sizeof length);) {
    requests.emplace_back(length, '\0');
    if (!std::cin.read(requests.back().data(), static_cast<std::streamsize>(length))) {
      std::cerr << "request " << requests.size() - 1 << " is cut short" << std::endl;
      return 2;
    }
  }
  tf::SavedModelBundle bundle;
  Check(tf::LoadSavedModel(tf::SessionOptions(), tf::RunOptions(), argv[1], {"serve"}, &bundle));
  const auto signature = bundle.GetSignatures().find(argv[2]);
  if (signature == bundle.GetSignatures().end()) {
    std::cerr << "no signature " << argv[2] << std::endl;
    return 1;
  }
  const std::string input = signature->second.inputs().at("inputs").name();
  const std::vector<std::string> outputs = {signature->second.outputs().at("scores").name(),
                                            signature->second.outputs().at("sizes").name()};
  const size_t lists_a_call = std::stoul(argv[3]);
  size_t start = 0;
  do {  // once at least: an empty batch is a request too
    const size_t lists = std::min(lists_a_call, requests.size() - start);
    tf::Tensor batch(tf::DT_STRING, tf::TensorShape({static_cast<int64_t>(lists)}));
    for (size_t i = 0; i < lists; ++i) batch.flat<tf::tstring>()(i) = requests[start + i];
    std::vector<tf::Tensor> answer;
    Check(bundle.GetSession()->Run({{input, batch}}, outputs, {}, &answer));
    const auto scores = answer[0].matrix<float>();
    const auto sizes = answer[1].vec<int64_t>();
    for (size_t i = 0; i < lists; ++i) {
      for (int64_t j = 0; j < scores.dimension(1); ++j) {
        if (j < sizes(i)) {
          std::printf(j ? " %.9g" : "%.9g", scores(i, j));
        } else if (scores(i, j) != std::numeric_limits<float>::lowest()) {
          std::cerr << "list " << start + i << ": padding is " << scores(i, j) << std::endl;
          return 1;
        }
      }
      std::printf("\n");
    }
    start += lists;
  } while (start < requests.size());
  return 0;
}
