// Prints dlib's frontal face detector as it is serialized. dlib stores it compressed, and needs a third of a second to
// decompress it, so build.rs runs this program once and the result becomes part of ours.

#include <dlib/algs.h>
#include <dlib/test_for_odr_violations.h>
// As in hog.cpp.
#undef DLIB_USE_BLAS
#undef DLIB_USE_LAPACK
#include <dlib/image_processing/frontal_face_detector.h>

#include <iostream>

int main() {
    std::cout << dlib::get_serialized_frontal_faces() << std::flush;
    return std::cout ? 0 : 1;
}
