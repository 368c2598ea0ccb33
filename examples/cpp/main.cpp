// Classify a raw picture: classify WIDTH HEIGHT FILE, with WIDTH x HEIGHT x 3 bytes of RGB in FILE.
#include HEADER

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <vector>

static int fail(const char *what, const char *reason)
{
    std::fprintf(stderr, "%s: %s\n", what, reason);
    return 1;
}

int main(int count, char **arguments)
{
    if (count != 4)
        return fail(arguments[0], "WIDTH HEIGHT FILE");
    std::ifstream file(arguments[3], std::ios::binary);
    const std::vector<char> bytes{std::istreambuf_iterator<char>(file), {}};
    const auto *pixels = reinterpret_cast<const std::uint8_t *>(bytes.data());

    auto model = MODEL::Model::create(2); // two threads share the work
    if (!model)
        return fail("the model", model.error().message);
    auto frame = MODEL::Frame::packed({pixels, bytes.size()}, std::atoi(arguments[1]),
                                      std::atoi(arguments[2]), MODEL::Format::rgb);
    if (!frame)
        return fail(arguments[3], frame.error().message);
    auto answers = model->classify(*frame);
    if (!answers)
        return fail(arguments[3], answers.error().message);
    for (const MODEL::Answer &answer : *answers)
        std::printf("%.9g  %.*s\n", static_cast<double>(answer.probability),
                    static_cast<int>(answer.label.size()), answer.label.data());
    return 0;
}
