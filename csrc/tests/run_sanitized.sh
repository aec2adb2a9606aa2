#!/bin/sh
# Builds csrc/core and its tests with the address and undefined-behaviour sanitizers, and runs them.
set -eu
cd "$(dirname "$0")/../.."
build=$(mktemp -d)
trap 'rm -rf "$build"' EXIT

flags="-std=c++17 -g -O1 -Wall -Wextra -Werror -ffp-contract=off -fsanitize=address,undefined"
flags="$flags -fno-sanitize-recover=all -pthread"
compile() { "${CXX:-g++}" $flags "$@"; }

for source in csrc/core/*.cpp; do
  own=${source%.cpp}.cflags # of an instruction set of x86-64 (setup.py)
  if [ ! -e "$own" ]; then
    compile -c "$source" -o "$build/$(basename "$source").o" &
  elif [ "$(uname -m)" = x86_64 ]; then
    compile $(cat "$own") -c "$source" -o "$build/$(basename "$source").o" &
  fi
done
wait
for test in test_core test_softmax test_contrast test_runs test_variants test_head; do
  compile "csrc/tests/$test.cpp" "$build"/*.o -o "$build/$test"
  "$build/$test"
done
