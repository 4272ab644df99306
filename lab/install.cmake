# cmake --install, and the Debian package that CPack makes of the same files.
include(GNUInstallDirs)

# What `lab docs` prints. CMake runs the program of a cross build through its emulator.
set(docs)
foreach(doc man:lab.1 bash:lab.bash zsh:_lab)
  string(REGEX MATCH "(.*):(.*)" _ ${doc})
  set(file ${PROJECT_BINARY_DIR}/docs/${CMAKE_MATCH_2})
  add_custom_command(OUTPUT ${file}
      COMMAND ${CMAKE_COMMAND} -E make_directory ${PROJECT_BINARY_DIR}/docs
      COMMAND lab docs ${CMAKE_MATCH_1} > ${file}
      DEPENDS lab VERBATIM)
  list(APPEND docs ${file})
endforeach()
add_custom_target(lab_docs ALL DEPENDS ${docs})

file(GLOB cases CONFIGURE_DEPENDS cases/*.toml cases/*.safetensors)
install(TARGETS lab)
install(FILES ${cases} DESTINATION ${CMAKE_INSTALL_DATADIR}/lab/cases)
install(FILES ${PROJECT_BINARY_DIR}/docs/lab.1 DESTINATION ${CMAKE_INSTALL_MANDIR}/man1)
install(FILES ${PROJECT_BINARY_DIR}/docs/lab.bash RENAME lab
        DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions)
install(FILES ${PROJECT_BINARY_DIR}/docs/_lab DESTINATION ${CMAKE_INSTALL_DATADIR}/zsh/site-functions)
install(FILES README.md DESTINATION ${CMAKE_INSTALL_DOCDIR})
install(FILES LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR} RENAME copyright)

set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "kernel lab with reference oracles for qwen2 models")
set(CPACK_PACKAGE_CONTACT "The lab's authors <lab@localhost>")
set(CPACK_STRIP_FILES ON)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SECTION science)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
set(CPACK_PRE_BUILD_SCRIPTS ${PROJECT_SOURCE_DIR}/lab/debian.cmake)
include(CPack)
