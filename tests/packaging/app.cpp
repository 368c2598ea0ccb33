// app IMAGE: as app.c in C++, and all that levit_deploy.hpp has, whose mistakes are exit codes.
#include "small.hpp"

#include <array>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iterator>
#include <vector>

// What Frame::of uses of OpenCV's class, whose headers come with no wheel.
struct Mat {
    unsigned char *data;
    std::size_t step[2];
    int cols, rows, dims, kind, count;
    int depth() const { return kind; }
    int channels() const { return count; }
    std::size_t elemSize1() const { return 1; }
};

static bool same(small::View<const float> one, small::View<const float> other)
{
    return one.size() == other.size() &&
           std::memcmp(one.data(), other.data(), one.size() * sizeof(float)) == 0;
}

int main(int, char **arguments)
{
    std::ifstream file(arguments[1], std::ios::binary);
    std::vector<char> bytes{std::istreambuf_iterator<char>(file), {}};
    const auto *pixels = reinterpret_cast<const std::uint8_t *>(bytes.data());
    const small::View<const std::uint8_t> rgb(pixels, bytes.size());

    auto created = small::Model::create();
    auto threaded = small::Model::create(3);
    if (!created || !threaded)
        return 10;
    small::Model model = std::move(created).value(); // it moves
    auto frame = small::Frame::packed(rgb, 90, 60, small::Format::rgb);
    if (!frame)
        return 11;
    auto logits = model.run_frame(*frame);
    auto shared = threaded->run_frame(*frame);
    if (!logits || !shared || !same(*logits, *shared))
        return 12;
    std::fwrite(logits->data(), sizeof(float), logits->size(), stdout);

    std::vector<unsigned char> bgr(bytes.begin(), bytes.end());
    for (std::size_t i = 0; i < bgr.size(); i += 3)
        std::swap(bgr[i], bgr[i + 2]);
    Mat picture{bgr.data(), {270, 3}, 90, 60, 2, 0, 3};
    auto answers = threaded->classify(picture, 2);
    auto all = model.classify(*frame, 100);
    if (!answers || !all || answers->size() != 2 || all->size() != small::Api::classes)
        return 13;
    for (std::size_t i = 0; i < 2; i++)
        if ((*answers)[i].class_index != (*all)[i].class_index ||
            (*answers)[i].label != small_label((*all)[i].class_index))
            return 14;

    picture.kind = 5; // floats
    if (threaded->classify(picture) ||
        small::Frame::packed(rgb, 91, 60, small::Format::rgb) ||
        small::Frame::packed(rgb, -90, -60, small::Format::rgb))
        return 15;
    frame->rotation = 45;
    auto refused = model.run_frame(*frame);
    if (refused || refused.error().code != SMALL_ERROR_FRAME_ROTATION ||
        !std::strstr(refused.error().message, "rotation"))
        return 16;
    if (small::Model::create(17) || small::Model::create(0))
        return 17;

    std::array<std::uint8_t, small::Api::values> image{};
    if (model.self_test().code || !model.run_8bit(image) || model.run_8bit(rgb))
        return 18;
    const std::vector<float> normalised(small::Api::values);
    if (!model.run(normalised) || std::strcmp(model.describe().name, "small"))
        return 19;
    const std::vector<std::uint8_t> nv12(64 * 48 * 3 / 2), i420 = nv12;
    auto one = small::Frame::packed(nv12, 64, 48, small::Format::nv12);
    auto other = small::Frame::packed(i420, 64, 48, small::Format::i420);
    if (!one || !other)
        return 20;
    auto green = model.run_frame(*one);
    auto also = threaded->run_frame(*other);
    if (!green || !also || !same(*green, *also))
        return 21;
#ifdef LEVIT_DEPLOY_EXCEPTIONS
    try {
        refused.value();
        return 22;
    } catch (const std::runtime_error &) {
    }
#endif
    return 0;
}
