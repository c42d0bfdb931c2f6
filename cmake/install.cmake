# The installed tree: header, both libraries, the program, and the two ways to find them (pkg-config, find_package).
# Of it, the component "python" is what the wheel has beside the package's own files (pyproject.toml).
include(CMakePackageConfigHelpers)

if(SKBUILD)
    set(modules pivot)
    if(TARGET pivot-cuda)
        list(APPEND modules pivot-cuda)
    endif()
    add_custom_target(python DEPENDS ${modules})
    set_target_properties(${modules} PROPERTIES INSTALL_RPATH_USE_LINK_PATH ON) # libraries may lie where the loader does not look
    install(TARGETS ${modules} LIBRARY DESTINATION pivot COMPONENT python)
    return()
endif()

install(FILES include/pivot.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(FILES LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR})
install(TARGETS pivot EXPORT PivotTargets INCLUDES DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(TARGETS pivot_static)
if(TARGET pivot_cli)
    install(TARGETS pivot_cli)
endif()

# Of the .pc file, what only a static link needs: packages that have a .pc file themselves, and plain libraries.
set(pc_requires libcjson)
set(pc_libs -lm -ldl -pthread)
if(SENTENCEPIECE_FOUND)
    list(APPEND pc_requires sentencepiece)
    list(APPEND pc_libs -lstdc++)
endif()
if(OPENBLAS_FOUND) # not required by name: asked for a static link, openblas.pc wants the Fortran library that only gfortran brings
    list(APPEND pc_libs ${OPENBLAS_LDFLAGS} -lopenblas)
    list(REMOVE_DUPLICATES pc_libs)
endif()
list(JOIN pc_requires " " PC_REQUIRES)
list(JOIN pc_libs " " PC_LIBS)
file(RELATIVE_PATH PC_UP /prefix/${CMAKE_INSTALL_LIBDIR}/pkgconfig /prefix) # from the .pc file: the tree can be moved
configure_file(cmake/pivot.pc.in pivot.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/pivot.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)

set(package ${CMAKE_INSTALL_LIBDIR}/cmake/Pivot)
install(EXPORT PivotTargets NAMESPACE Pivot:: DESTINATION ${package})
install(FILES cmake/PivotConfig.cmake DESTINATION ${package})
write_basic_package_version_file(PivotConfigVersion.cmake COMPATIBILITY SameMinorVersion) # until 1.0
install(FILES ${PROJECT_BINARY_DIR}/PivotConfigVersion.cmake DESTINATION ${package})
