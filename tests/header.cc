// header.cc - pivot.h needs no other header before it, and its names link from C++.
#include "pivot.h"

int main()
{
    return pv_status_name(PV_OK)[0] == 'O' ? 0 : 1;
}
