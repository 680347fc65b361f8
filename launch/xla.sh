# shellcheck shell=bash
# Sourced by the scripts of clusters: flags of the compilers that trainers of such sizes set on GPUs
# and TPUs, for as long as the user has not set them otherwise. None was measured here.
#
# XLA ends a program that has a flag it does not know; COMPILER_FLAGS=0 leaves all of these out.
COMPILER_FLAGS=${COMPILER_FLAGS:-1}
GPU_MEMORY=0.9
GPU_WHY='share of memory that JAX takes; 0.75 is its default, NCCL and cuDNN need the rest'
GPU_FLAGS=(  # flag, reason
  '--xla_gpu_enable_latency_hiding_scheduler=true communication is begun early and waited for late'
  '--xla_gpu_enable_highest_priority_async_stream=true and does not queue behind computation'
  '--xla_gpu_enable_pipelined_all_gather=true weights of the next block come during this one'
  '--xla_gpu_enable_pipelined_reduce_scatter=true gradients of the last block go during this one'
  '--xla_gpu_enable_pipelined_all_reduce=true the same without mesh.fsdp'
  '--xla_gpu_enable_while_loop_double_buffering=true without copies between the turns of the loop over blocks'
  '--xla_gpu_all_reduce_combine_threshold_bytes=134217728 gradients go in pieces of 128 MiB'
  '--xla_gpu_all_gather_combine_threshold_bytes=134217728 a few blocks of 1024 channels at a time'
  '--xla_gpu_reduce_scatter_combine_threshold_bytes=33554432 small, so that they begin early'
  '--xla_gpu_enable_triton_gemm=false large bf16 matrices go to cuBLAS'
)
TPU_FLAGS=(
  '--xla_enable_async_all_gather=true weights (mesh.fsdp) come during computation'
  '--xla_enable_async_all_reduce=true gradients go during computation'
  '--xla_tpu_overlap_compute_collective_tc=true both at the same time on a core'
  '--xla_tpu_enable_async_collective_fusion=true steps of a collective ride along with matrices'
  '--xla_tpu_enable_async_collective_fusion_fuse_all_gather=true all-gathers too'
  '--xla_tpu_enable_async_collective_fusion_multiple_steps=true over several of them'
  '--xla_tpu_enable_data_parallel_all_reduce_opt=true gradients between slices, over the network'
  '--xla_tpu_data_parallel_opt_different_sized_ops=true of whatever size'
  '--xla_jf_spmd_threshold_for_windowed_einsum_mib=1000000 no matrix is cut up: no mesh axis splits one'
)

is_set() {  # FLAG=VALUE FLAGS : whether the flag is among FLAGS, with whatever value
  case " $2 " in *" ${1%%=*}="* | *" ${1%%=*} "*) ;; *) return 1 ;; esac
}

add_defaults() {  # VARIABLE FLAG... : adds those that the user has not set, and prints all with why
  local variable=$1 users=${!1:-} line flag
  shift
  if [ "$COMPILER_FLAGS" = 0 ]; then echo "$variable: as you set it" >&2; return; fi
  echo "$variable, after trainers of such sizes; not measured here (launch/README.md):" >&2
  export "$variable=$users"
  for line in "$@"; do
    flag=${line%% *}
    if is_set "$flag" "$users"; then
      echo "  ${flag%%=*}: yours" >&2
    else
      echo "  $flag  ${line#* }" >&2
      export "$variable=${!variable}${!variable:+ }$flag"
    fi
  done
}

tpu_flags() {  # sets LIBTPU_INIT_ARGS
  add_defaults LIBTPU_INIT_ARGS "${TPU_FLAGS[@]}"
}

gpu_flags() {  # sets XLA_FLAGS and XLA_PYTHON_CLIENT_MEM_FRACTION
  add_defaults XLA_FLAGS "${GPU_FLAGS[@]}"
  if [ "$COMPILER_FLAGS" != 0 ] && [ ! "${XLA_PYTHON_CLIENT_MEM_FRACTION:-}" ]; then
    export XLA_PYTHON_CLIENT_MEM_FRACTION=$GPU_MEMORY
    echo "XLA_PYTHON_CLIENT_MEM_FRACTION=$GPU_MEMORY  $GPU_WHY" >&2
  fi
}
