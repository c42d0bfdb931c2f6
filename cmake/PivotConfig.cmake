# find_package(Pivot) gives Pivot::pivot, the shared library. Nothing else is needed to link it.
include(${CMAKE_CURRENT_LIST_DIR}/PivotTargets.cmake)
