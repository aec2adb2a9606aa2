#!/bin/sh
# Builds the Python module with the address and undefined-behaviour sanitizers:
#
#   build_sanitized_module.sh FOLDER
#
# FOLDER/_native.so can be imported where the sanitizer's library and then that of C++ are loaded
# before Python's: LD_PRELOAD="$(g++ -print-file-name=libasan.so) $(g++ -print-file-name=libstdc++.so)".
set -eu
cd "$(dirname "$0")/../.."
folder=$1
shift
set -- "${CXX:-g++}" -std=c++17 -g -O1 -ffp-contract=off -fno-math-errno -fno-trapping-math -fPIC \
  -fvisibility=hidden -fsanitize=address,undefined -fno-sanitize-recover=all -pthread
sh csrc/tests/objects.sh "$folder" "$(uname -m)" "$@"
# shellcheck disable=SC2046
for source in csrc/bindings/*.cpp; do
  "$@" $(python -m pybind11 --includes) -c "$source" -o "$folder/bind_$(basename "$source").o"
done
"$@" -shared "$folder"/*.o -o "$folder/_native.so"
