# pv_find(<option> <name> <Debian packages> <pkg-config modules>...): answers an option that is AUTO (look), ON (insist)
# or OFF (skip). Sets <name>_FOUND; when TRUE, PkgConfig::<name> is a target to link.
# OpenBLAS is also taken without a .pc file, when a program with the calls we need links; SentencePiece needs a C++ compiler.
find_package(PkgConfig)
include(CheckLanguage)
include(CheckCSourceCompiles)

function(pv_find option name packages)
    set(found FALSE)
    if(${option} AND PKG_CONFIG_FOUND)
        pkg_check_modules(${name} QUIET IMPORTED_TARGET GLOBAL ${ARGN})
        if(${name}_FOUND)
            set(found TRUE)
        endif()
    endif()
    if(${option} AND NOT found AND name STREQUAL OPENBLAS)
        set(CMAKE_REQUIRED_LIBRARIES openblas)
        check_c_source_compiles("#include <cblas.h>
            void openblas_set_num_threads(int);
            int main(void)
            {
                float x = 1, y = 0;
                openblas_set_num_threads(1);
                cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, 1, 1, 1, 1, &x, 1, &x, 1, 0, &y, 1);
                return y != 1;
            }" PV_OPENBLAS_LINKS)
        if(PV_OPENBLAS_LINKS)
            set(found TRUE)
            add_library(PkgConfig::OPENBLAS INTERFACE IMPORTED GLOBAL)
            target_link_libraries(PkgConfig::OPENBLAS INTERFACE openblas)
        endif()
    endif()
    if(found AND name STREQUAL SENTENCEPIECE)
        check_language(CXX)
        if(NOT CMAKE_CXX_COMPILER)
            set(found FALSE)
            string(APPEND packages " g++")
        endif()
    endif()
    if(${option} AND NOT found AND NOT "${${option}}" STREQUAL AUTO)
        list(JOIN ARGN ", " modules)
        message(FATAL_ERROR "${option}=${${option}}: ${modules} not found. Debian, Ubuntu: apt install pkg-config ${packages}")
    endif()
    set(${name}_FOUND ${found} PARENT_SCOPE)
endfunction()
