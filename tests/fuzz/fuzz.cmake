# The targets of tests/fuzz/targets.h: replayed over their corpora by lab_test everywhere, and fuzzed
# by lab_fuzz, which the preset `fuzz` builds.
target_sources(lab_test PRIVATE tests/fuzz/targets.cc tests/fuzz/memory.cc)

if(CMAKE_CXX_FLAGS MATCHES "fuzzer-no-link")
  # The readers and what they need, without kernels; a source that is missing here is an undefined
  # symbol. Most of the time goes into the headers they share, so each group is one compilation.
  set(fuzz_runs
      lab/aligned.cc lab/cache_dir.cc lab/facts.cc lab/laws.cc lab/names.cc lab/output.cc lab/read_apr_trace.cc
      lab/gzip.cc lab/name_map.cc lab/place.cc lab/read_dump.cc lab/read_lab_trace.cc lab/read_llama_log.cc lab/registry_names.cc
      lab/run_headers.cc lab/run_readers.cc lab/run_record.cc lab/shard.cc lab/sketch.cc lab/stats.cc lab/stored_type.cc
      lab/taps.cc lab/toml_reader.cc)
  set(fuzz_weights
      model/apr.cc model/byte_alphabet.cc model/file_bytes.cc model/gguf.cc model/hf_names.cc
      model/qwen2.cc model/synth.cc model/tokenizer.cc model/weight_file.cc reference/dequant_ref.cc)
  set(fuzz_json lab/sha256.cc model/hf.cc model/json_metadata.cc)
  set(fuzz_main tests/fuzz/fuzz_main.cc tests/fuzz/memory.cc tests/fuzz/targets.cc)
  add_executable(lab_fuzz ${fuzz_runs} ${fuzz_weights} ${fuzz_json} ${fuzz_main}
      lab/case.cc lab/cli.cc lab/row_sums_hwy.cc lab/safetensors.cc)
  foreach(group fuzz_runs fuzz_weights fuzz_json fuzz_main)
    set_source_files_properties(${${group}} PROPERTIES UNITY_GROUP ${group})
  endforeach()
  set_target_properties(lab_fuzz PROPERTIES UNITY_BUILD ON UNITY_BUILD_MODE GROUP)
  target_include_directories(lab_fuzz PRIVATE ${PROJECT_SOURCE_DIR})
  target_compile_definitions(lab_fuzz PRIVATE
      $<TARGET_PROPERTY:lab_core,INTERFACE_COMPILE_DEFINITIONS>)
  target_compile_options(lab_fuzz PRIVATE $<TARGET_PROPERTY:lab_core,INTERFACE_COMPILE_OPTIONS>)
  target_link_libraries(lab_fuzz PRIVATE $<TARGET_PROPERTY:lab_core,INTERFACE_LINK_LIBRARIES>)
  target_link_options(lab_fuzz PRIVATE -fsanitize=fuzzer)
endif()
