#!/bin/sh
# Compiles every source of csrc/core, on all processors, into a folder of objects:
#
#   objects.sh FOLDER MACHINE COMPILER [FLAG ...]
#
# A source with flags of its own has them beside it, x.cpp in x.cflags, and is for the machine
# x86_64 alone (setup.py).
set -eu
cd "$(dirname "$0")/../.."
# shellcheck disable=SC2016
printf '%s\n' csrc/core/*.cpp | xargs -P "$(getconf _NPROCESSORS_ONLN)" -n 1 sh -euc '
  folder=$1 machine=$2
  shift 2
  for source; do :; done # the last argument, by xargs
  own=${source%.cpp}.cflags
  if [ -e "$own" ]; then
    [ "$machine" = x86_64 ] || exit 0
    set -- "$@" $(cat "$own")
  fi
  "$@" -c -o "$folder/$(basename "$source").o"' objects "$@"
