// A C interface to dlib's frontal face detector. Input: grey or RGB pixels. Output: boxes with scores.
//
// build.rs compiles this file twice, for AVX2 and for the baseline of the processor. HOG is the prefix of the function
// names. No exception leaves the functions.

#include <dlib/algs.h>
#include <dlib/test_for_odr_violations.h>
// Debian builds dlib with BLAS and LAPACK. The headers used here do not need them.
#undef DLIB_USE_BLAS
#undef DLIB_USE_LAPACK
#include <dlib/array2d.h>
#include <dlib/image_processing/frontal_face_detector.h>
#include <dlib/pixel.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <sstream>
#include <string>
#include <vector>

#define JOIN2(a, b) a##b
#define JOIN(a, b) JOIN2(a, b)
#define NAME(function) JOIN(HOG, function)

namespace {

struct Hog {
    dlib::frontal_face_detector detector;
    dlib::array2d<unsigned char> grey;
    dlib::array2d<dlib::rgb_pixel> rgb;
    std::vector<dlib::rect_detection> found;
};

std::atomic<uint64_t> loaded{0};

// dlib's frontal face detector, as dlib::get_serialized_frontal_faces() returns it.
struct Published {
    dlib::frontal_face_detector::image_scanner_type scanner;
    dlib::test_box_overlap overlap;
    std::vector<dlib::frontal_face_detector::feature_vector_type> weights;

    explicit Published(const std::string& serialized) {
        ++loaded;
        std::istringstream in(serialized);
        int version = 0;
        unsigned long count = 0;
        dlib::deserialize(version, in);
        if (version != 2) {
            throw dlib::serialization_error("unknown version of the face detector");
        }
        dlib::deserialize(scanner, in);
        dlib::deserialize(overlap, in);
        dlib::deserialize(count, in);
        weights.resize(count);
        for (auto& weight : weights) {
            dlib::deserialize(weight, in);
        }
    }
};

// The detector, limited to `levels` steps of the image pyramid. Each is made once a process; its users get copies.
const dlib::frontal_face_detector& prototype(const std::string& serialized, unsigned long levels) {
    static const Published published(serialized);
    static std::mutex mutex;
    static std::map<unsigned long, dlib::frontal_face_detector> prototypes;

    const std::lock_guard<std::mutex> lock(mutex);
    const auto known = prototypes.find(levels);
    if (known != prototypes.end()) {
        return known->second;
    }
    dlib::frontal_face_detector::image_scanner_type scanner;
    scanner.copy_configuration(published.scanner);
    scanner.set_max_pyramid_levels(levels);
    const dlib::frontal_face_detector detector(scanner, published.overlap, published.weights);
    return prototypes.emplace(levels, detector).first->second;
}

template <typename Pixel>
const dlib::array2d<Pixel>& filled(dlib::array2d<Pixel>& image, const uint8_t* pixels, long width, long height) {
    image.set_size(height, width);
    const size_t row = static_cast<size_t>(width) * sizeof(Pixel);
    for (long y = 0; y < height; ++y) {
        std::memcpy(static_cast<void*>(&image[y][0]), pixels + static_cast<size_t>(y) * row, row);
    }
    return image;
}

}  // namespace

extern "C" {

// `Box` in dlib.rs. Edges are inclusive, in pixels.
struct NAME(_box) {
    double score;
    int64_t left, top, right, bottom;
};

// Returns a detector, or null when out of memory. With `levels` 0 the pyramid is not limited. `serialized` are the
// `length` bytes of dlib's detector; only the first call of a process reads them.
void* NAME(_new)(const uint8_t* serialized, size_t length, uint32_t levels) {
    try {
        std::unique_ptr<Hog> hog(new Hog);
        const std::string bytes(reinterpret_cast<const char*>(serialized), length);
        hog->detector = prototype(bytes, levels == 0 ? 1000 : levels);
        return hog.release();
    } catch (...) {
        return nullptr;
    }
}

// Returns how often this process has read dlib's detector.
uint64_t NAME(_loaded)() { return loaded; }

void NAME(_free)(void* hog) { delete static_cast<Hog*>(hog); }

// Searches `height` rows of `width` pixels of `channels` bytes (1: grey, 3: RGB), without padding. Writes the best
// `capacity` boxes with a score above `threshold`, best first. Returns the number of all such boxes, or -1 on failure.
int64_t NAME(_find)(void* opaque, const uint8_t* pixels, int64_t width, int64_t height, int32_t channels,
                    double threshold, struct NAME(_box) * boxes, size_t capacity) {
    try {
        Hog& hog = *static_cast<Hog*>(opaque);
        if (channels == 1) {
            hog.detector(filled(hog.grey, pixels, width, height), hog.found, threshold);
        } else {
            hog.detector(filled(hog.rgb, pixels, width, height), hog.found, threshold);
        }
        const size_t written = std::min(capacity, hog.found.size());
        for (size_t i = 0; i < written; ++i) {
            const dlib::rect_detection& face = hog.found[i];
            boxes[i] = {face.detection_confidence, face.rect.left(), face.rect.top(), face.rect.right(),
                        face.rect.bottom()};
        }
        return static_cast<int64_t>(hog.found.size());
    } catch (...) {
        return -1;
    }
}

}  // extern "C"
