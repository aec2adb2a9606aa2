#!/bin/sh
# Compiles csrc/core for macOS and Windows, by the Clang of the package ziglang. Nothing is linked or
# run.
set -eu
cd "$(dirname "$0")/../.."
if ! python -c "import ziglang" 2>/dev/null; then
  echo "macOS, Windows: skipped, the compiler is missing (pip install -c constraints.txt ziglang)"
  exit 0
fi
build=$(mktemp -d)
trap 'rm -rf "$build"' EXIT

for target in aarch64-macos x86_64-macos x86_64-windows-gnu; do
  mkdir "$build/$target"
  set -- python -m ziglang c++ -target "$target" -std=c++17 -O1 -Wall -Wextra -Werror \
    -ffp-contract=off -fno-math-errno -fno-trapping-math -Wno-unknown-warning-option
  sh csrc/tests/objects.sh "$build/$target" "${target%%-*}" "$@"
  echo "$target: compiled"
done
