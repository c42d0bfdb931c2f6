# Common to scripts that run the program as its users do: $1 is it, and the working directory an empty one of their own.
set -uo pipefail
pivot=$(realpath "$1")
dir=$(mktemp -d)
trap 'mountpoint -q "$dir/full" && umount "$dir/full"; rm -rf "$dir"' EXIT
cd "$dir" || exit 1
export PIVOT_CACHE=$dir/kept
passed=0 failed=0

result() { # name, status
    if [ "$2" = 0 ]; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        echo "FAILED: $1"
        sed 's/^/    /' err 2>/dev/null | head -5
    fi
}

# expect <exit code> <extended regular expression on stderr> <arguments...>; what fails says nothing on stdout
expect() {
    local code=$1 words=$2 came
    shift 2
    "$pivot" "$@" >out 2>err
    came=$?
    [ $came = "$code" ] && grep -qE -- "$words" err && { [ "$code" = 0 ] || [ ! -s out ]; }
    result "pivot $* (expected $code and '$words', came $came)" $?
}

# works <extended regular expression on stdout> <arguments...>; and is silent on stderr
works() {
    local words=$1 came
    shift
    "$pivot" "$@" >out 2>err
    came=$?
    [ $came = 0 ] && grep -qE -- "$words" out && [ ! -s err ]
    result "pivot $* (expected '$words', came $came)" $?
}
