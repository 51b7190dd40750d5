#!/usr/bin/env bash
# Every figure of the bundled colour model in docs/results.md: benchmarks/colour.sh TRAIN.parquet TEST.parquet OUT [EARLY] [PART ..]
# Parts: goal guided table1 thousand solvers tune reconstruct autoguided stitched; all without names. Interrupted, the
# same command goes on. EARLY: an early checkpoint of the same run, for the part autoguided ("" for none). SMALL, in the
# environment: a smaller network of the same process, for the part stitched and as another guide.
set -euo pipefail
train=$1 test=$2 out=$3 early=${4:-}
shift $(($# < 4 ? $# : 4))
parts=${*:-goal guided tune table1 thousand solvers reconstruct autoguided stitched}
mkdir -p "$out"
judge() { name=$1; shift; echo "== $name"; ddim evaluate cifar10 "$train" --held-out "$test" --out "$out/$name" "$@"; }
for part in $parts; do
    case $part in
    goal) judge goal --no-sigma-hat --steps 50 --eta 0 --count 2000 ;;
    guided) judge guided --no-sigma-hat --steps 50 --eta 0 --count 2000 --guidance 2 ;;
    table1) judge table1 --steps 10,20,50,100 --eta 0,0.2,0.5,1 --count 300 ;;
    thousand) judge thousand --no-sigma-hat --steps "" --count 50 --also "ddim:0:20:uniform,ddim:0:1000:uniform,ddim:1:1000:uniform" ;;
    solvers)
        ddim tune cifar10 "$train" --steps 10 --solver dpm++2m --latents 64 --long 60 --trials 30 --precision bf16
        judge solvers --no-sigma-hat --steps "" --count 1000 --also "ddim:0:50:uniform,ddim:0:10:uniform,dpm++2m:0:10:tuned,dpm++2m:0:10:trailing,dpm++2m:0:10:logsnr,unipc:0:10:logsnr,ab4:0:10:trailing" ;;
    tune) ddim tune cifar10 "$train" --guidance --solver ddim --steps 20 --count 300 --trials 6 --precision bf16 --out "$out/tune" ;;
    reconstruct) ddim reconstruct cifar10 "$test" --steps 10,20,50,100 --count 100 --out "$out/reconstruct" ;;
    autoguided)
        judge plain --no-sigma-hat --steps 20 --eta 0 --count 1000
        [ -z "$early" ] || judge autoguided --no-sigma-hat --steps 20 --eta 0 --count 1000 --guide "$early" --guidance 2
        for w in ${SMALL:+1.5 2}; do judge "autoguided-small-$w" --no-sigma-hat --steps 20 --eta 0 --count 1000 --guide "$SMALL" --guidance $w; done ;;
    stitched)
        [ -z "${SMALL:-}" ] || ddim tune cifar10 "$train" --held-out "$test" --early "$SMALL" --no-save --solver ddim --steps 20 --count 500 --precision bf16 --out "$out/stitched" ;;
    esac
done
