// Calls a model's signatures through the C++ loader in TensorFlow's wheel, the one that TensorFlow Serving runs.
//
//   serving_client MODEL < calls > answers
//
// A number is a little-endian uint64, a text a number and that many bytes.  A call is the text of its signature, the
// number of its inputs, and for each the texts of its name and of its serialized TensorProto.  Its answer is the number
// of outputs and the same for each; of a call that failed, the largest uint64 and the text of TensorFlow's status.
#include <cstdint>
#include <iostream>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "tensorflow/cc/saved_model/loader.h"
#include "tensorflow/core/framework/tensor.h"
#include "tensorflow/core/framework/tensor.pb.h"
#include "tensorflow/core/public/session.h"

namespace tf = tensorflow;

using Named = std::vector<std::pair<std::string, tf::Tensor>>;

static bool Read(uint64_t* number) {
  return static_cast<bool>(std::cin.read(reinterpret_cast<char*>(number), sizeof *number));
}

static bool Read(std::string* text) {
  uint64_t length;
  if (!Read(&length)) return false;
  text->resize(length);
  return static_cast<bool>(std::cin.read(text->data(), static_cast<std::streamsize>(length)));
}

static void Write(uint64_t number) { std::cout.write(reinterpret_cast<const char*>(&number), sizeof number); }

static void Write(const std::string& text) {
  Write(static_cast<uint64_t>(text.size()));
  std::cout.write(text.data(), static_cast<std::streamsize>(text.size()));
}

static tf::Status Call(const tf::SavedModelBundle& bundle, const std::string& name, const Named& given, Named* came) {
  const auto signature = bundle.GetSignatures().find(name);
  if (signature == bundle.GetSignatures().end()) return tf::errors::NotFound("no signature ", name);
  Named fed;
  for (const auto& [key, tensor] : given) {
    const auto input = signature->second.inputs().find(key);
    if (input == signature->second.inputs().end()) return tf::errors::InvalidArgument("no input ", key);
    fed.emplace_back(input->second.name(), tensor);
  }
  std::vector<std::string> keys, fetched;
  for (const auto& [key, info] : signature->second.outputs()) {
    keys.push_back(key);
    fetched.push_back(info.name());
  }
  std::vector<tf::Tensor> outputs;
  const tf::Status status = bundle.GetSession()->Run(fed, fetched, {}, &outputs);
  for (size_t i = 0; i < outputs.size(); ++i) came->emplace_back(keys[i], outputs[i]);
  return status;
}

int main(int argc, char** argv) {
  if (argc != 2) {
    std::cerr << "usage: serving_client MODEL < calls > answers" << std::endl;
    return 2;
  }
  tf::SavedModelBundle bundle;
  const tf::Status loaded = tf::LoadSavedModel(tf::SessionOptions(), tf::RunOptions(), argv[1], {"serve"}, &bundle);
  if (!loaded.ok()) {
    std::cerr << loaded.ToString() << std::endl;
    return 1;
  }
  for (std::string signature; Read(&signature);) {
    uint64_t inputs;
    bool whole = Read(&inputs);
    Named given, came;
    for (uint64_t i = 0; whole && i < inputs; ++i) {
      std::string name, serialized;
      tf::TensorProto proto;
      tf::Tensor tensor;
      whole = Read(&name) && Read(&serialized) && proto.ParseFromString(serialized) && tensor.FromProto(proto);
      given.emplace_back(name, tensor);
    }
    if (!whole) {
      std::cerr << "a call of " << signature << " cannot be read" << std::endl;
      return 2;
    }
    const tf::Status status = Call(bundle, signature, given, &came);
    if (!status.ok()) {
      Write(std::numeric_limits<uint64_t>::max());
      Write(status.ToString());
      continue;
    }
    Write(static_cast<uint64_t>(came.size()));
    for (const auto& [name, tensor] : came) {
      tf::TensorProto proto;
      tensor.AsProtoField(&proto);
      Write(name);
      Write(proto.SerializeAsString());
    }
  }
  return 0;
}
