/*
 * C++17 around the C API of any library that levit-deploy made: memory and threads that end with
 * their owner, views instead of pointers, and results instead of codes. NAME.hpp gives it a library.
 *
 * Nothing here throws. With LEVIT_DEPLOY_EXCEPTIONS defined before the first include,
 * Result::value() of an error throws std::runtime_error; otherwise look before you take it.
 */
#ifndef LEVIT_DEPLOY_HPP
#define LEVIT_DEPLOY_HPP

#include <cassert>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <string_view>
#include <type_traits>
#include <utility>
#ifdef LEVIT_DEPLOY_EXCEPTIONS
#include <stdexcept>
#endif

namespace levit_deploy {
inline namespace abi_2 {

/* `size` values that somebody else owns, as C++20's std::span. */
template <class T>
class View {
public:
    constexpr View() noexcept = default;
    constexpr View(T *data, std::size_t size) noexcept : data_(data), size_(size) {}
    template <std::size_t N>
    constexpr View(T (&values)[N]) noexcept : data_(values), size_(N) {}
    template <class Container, class = std::enable_if_t<std::is_convertible_v<
                                   decltype(std::declval<Container &>().data()), T *>>>
    constexpr View(Container &&values) noexcept : data_(values.data()), size_(values.size()) {}

    constexpr T *data() const noexcept { return data_; }
    constexpr std::size_t size() const noexcept { return size_; }
    constexpr bool empty() const noexcept { return size_ == 0; }
    constexpr T *begin() const noexcept { return data_; }
    constexpr T *end() const noexcept { return data_ + size_; }
    constexpr T &operator[](std::size_t i) const noexcept { return data_[i]; }

private:
    T *data_ = nullptr;
    std::size_t size_ = 0;
};

/* Why a call gave nothing. Positive codes are the C header's, and `message` is its sentence. */
struct Error {
    static constexpr int out_of_memory = -1, wrong_size = -2, no_threads = -3;

    int code;
    const char *message;
};

/* A value, or why there is none. */
template <class T>
class [[nodiscard]] Result {
public:
    Result(T value) noexcept : value_(std::move(value)) {}
    Result(Error error) noexcept : error_(error) {}

    explicit operator bool() const noexcept { return error_.code == 0; }
    const Error &error() const noexcept { return error_; }
    T &value() &
    {
        check();
        return value_;
    }
    T &&value() &&
    {
        check();
        return std::move(value_);
    }
    T &operator*() & { return value(); }
    T *operator->() { return &value(); }

private:
    void check() const
    {
#ifdef LEVIT_DEPLOY_EXCEPTIONS
        if (error_.code)
            throw std::runtime_error(error_.message);
#else
        assert(!error_.code);
#endif
    }

    Error error_{0, ""};
    T value_{};
};

/* What a byte means; the numbers are those of the C header. */
enum class Format : std::int32_t { rgb, bgr, rgba, bgra, gray8, nv12, nv21, i420, yuyv, uyvy };
enum class Matrix : std::int32_t { bt601, bt709 };
enum class Range : std::int32_t { limited, full };

/* A picture as a camera or a decoder has it in memory; see the C header. It owns nothing. */
struct Frame {
    const void *planes[3] = {};
    std::ptrdiff_t strides[3] = {};
    std::int32_t width = 0, height = 0;
    Format format = Format::rgb;
    std::int32_t rotation = 0;
    bool mirrored = false;
    Matrix matrix = Matrix::bt601;
    Range range = Range::limited;

    /* All planes one behind the other, rows without gaps: just so many bytes as that takes. */
    static Result<Frame> packed(View<const std::uint8_t> bytes, std::int32_t width,
                                std::int32_t height, Format format) noexcept
    {
        const Error wrong{Error::wrong_size, "there are not as many bytes as the frame takes"};
        if (width < 1 || height < 1 || width > 16384 || height > 16384)
            return wrong;
        const std::ptrdiff_t luma = std::ptrdiff_t(width) * height;
        Frame frame;
        frame.width = width;
        frame.height = height;
        frame.format = format;
        std::ptrdiff_t row = width, total = luma;
        frame.planes[0] = bytes.data();
        switch (format) {
        case Format::rgb:
        case Format::bgr: row *= 3, total *= 3; break;
        case Format::rgba:
        case Format::bgra: row *= 4, total *= 4; break;
        case Format::yuyv:
        case Format::uyvy: row *= 2, total *= 2; break;
        case Format::gray8: break;
        case Format::nv12:
        case Format::nv21:
            total += height / 2 * row;
            frame.planes[1] = bytes.data() + luma;
            frame.strides[1] = row;
            break;
        case Format::i420:
            total += height / 2 * (row / 2) * 2;
            frame.planes[1] = bytes.data() + luma;
            frame.planes[2] = bytes.data() + luma + height / 2 * (row / 2);
            frame.strides[1] = frame.strides[2] = row / 2;
            break;
        }
        frame.strides[0] = row;
        if (bytes.size() != static_cast<std::size_t>(total))
            return wrong;
        return frame;
    }

    /*
     * OpenCV's cv::Mat of 8 bits, as cv::imread gives it: BGR, BGRA or grey, rows apart or not.
     * Any class that looks like it will do, so that OpenCV need not be here.
     */
    template <class Mat, class = decltype(std::declval<const Mat &>().step[0] +
                                          std::declval<const Mat &>().elemSize1())>
    static Result<Frame> of(const Mat &picture) noexcept
    {
        const int channels = picture.channels();
        if (picture.depth() != 0 || picture.dims != 2 || channels == 2 || channels > 4)
            return Error{Error::wrong_size, "a cv::Mat of CV_8UC1, CV_8UC3 or CV_8UC4 is needed"};
        Frame frame;
        frame.planes[0] = picture.data;
        frame.strides[0] = static_cast<std::ptrdiff_t>(picture.step[0]);
        frame.width = picture.cols;
        frame.height = picture.rows;
        frame.format = channels == 1   ? Format::gray8
                       : channels == 3 ? Format::bgr
                                       : Format::bgra;
        return frame;
    }
};

/* A class with its softmax probability. `label` lives as long as the library. */
struct Answer {
    std::int32_t class_index = 0;
    float probability = 0;
    std::string_view label;
};

/*
 * A library with a workspace and threads of its own: one call at a time. Make one for each thread
 * that classifies. What a call returns is valid until the next one. Movable, not copyable.
 */
template <class Api>
class Model {
public:
    /* `threads`, 1 to 16, share the work of an image; the logits are the same bits. */
    static Result<Model> create(int threads = 1) noexcept
    {
        Model model;
        model.outputs_.reset(new (std::nothrow) Outputs);
        if (!model.outputs_ || !model.reserve(Api::workspace_bytes))
            return out_of_memory();
        if (threads != 1) {
            model.threads_.reset(Api::threads_create(threads));
            if (!model.threads_)
                return Error{Error::no_threads, "cannot create threads: there may be 1 to 16"};
        }
        return model;
    }

    /* Nothing to call: what Result holds instead of a model. */
    Model() noexcept = default;

    static const typename Api::Info &describe() noexcept { return *Api::describe(); }

    /* The most probable classes of a frame, best first; of equal ones the lower index first. */
    Result<View<const Answer>> classify(const Frame &frame, int count = 5) noexcept
    {
        const typename Api::Frame record = as_c(frame);
        if (!reserve(Api::frame_workspace_bytes(frame.width, frame.height)))
            return out_of_memory();
        const int code = Api::classify(&record, outputs_->records, count < Api::classes ? count : Api::classes,
                                       workspace_.get(), threads_.get());
        if (code)
            return error(code);
        const int found = count < Api::classes ? count : Api::classes;
        for (int i = 0; i < found; i++) {
            const typename Api::Answer &from = outputs_->records[i];
            outputs_->answers[i] = {from.class_index, from.probability, Api::label(from.class_index)};
        }
        return View<const Answer>(outputs_->answers, static_cast<std::size_t>(found));
    }

    /* A picture of any size, if it is of what Frame::of takes: classify(cv::imread("cat.jpg")). */
    template <class Picture, class = decltype(Frame::of(std::declval<const Picture &>()))>
    Result<View<const Answer>> classify(const Picture &picture, int count = 5) noexcept
    {
        Result<Frame> frame = Frame::of(picture);
        if (!frame)
            return frame.error();
        return classify(*frame, count);
    }

    /* The logits of a frame. */
    Result<View<const float>> run_frame(const Frame &frame) noexcept
    {
        const typename Api::Frame record = as_c(frame);
        if (!reserve(Api::frame_workspace_bytes(frame.width, frame.height)))
            return out_of_memory();
        return logits(Api::run_frame(&record, outputs_->logits, workspace_.get(), threads_.get()));
    }

    /* A normalised image, planar. */
    Result<View<const float>> run(View<const float> image) noexcept
    {
        if (image.size() != Api::values)
            return Error{Error::wrong_size, "the image is not of the model's size"};
        return logits(Api::run(image.data(), outputs_->logits, workspace_.get(), threads_.get()));
    }

    /* An 8-bit image of the model's own size, image[row][column][channel]. */
    Result<View<const float>> run_8bit(View<const std::uint8_t> image) noexcept
    {
        if (image.size() != Api::values)
            return Error{Error::wrong_size, "the image is not of the model's size"};
        return logits(
            Api::run_8bit(image.data(), outputs_->logits, workspace_.get(), threads_.get()));
    }

    /* Whether this CPU computes what the build machine computed. */
    Error self_test() noexcept { return error(Api::self_test(workspace_.get())); }

private:
    struct Outputs {
        float logits[Api::classes];
        typename Api::Answer records[Api::classes];
        Answer answers[Api::classes];
    };
    struct Destroy {
        void operator()(typename Api::Threads *threads) const noexcept
        {
            Api::threads_destroy(threads);
        }
    };

    static Error error(int code) noexcept { return {code, Api::strerror(code)}; }
    static Error out_of_memory() noexcept { return {Error::out_of_memory, "out of memory"}; }

    Result<View<const float>> logits(int code) noexcept
    {
        if (code)
            return error(code);
        return View<const float>(outputs_->logits);
    }

    bool reserve(std::size_t bytes) noexcept
    {
        if (bytes > bytes_) {
            workspace_.reset(new (std::nothrow) unsigned char[bytes]);
            bytes_ = workspace_ ? bytes : 0;
        }
        return workspace_ != nullptr;
    }

    static typename Api::Frame as_c(const Frame &frame) noexcept
    {
        typename Api::Frame record = {};
        for (int i = 0; i < 3; i++) {
            record.planes[i] = frame.planes[i];
            record.strides[i] = frame.strides[i];
        }
        record.width = frame.width;
        record.height = frame.height;
        record.format = static_cast<std::int32_t>(frame.format);
        record.rotation = frame.rotation;
        record.mirrored = frame.mirrored;
        record.matrix = static_cast<std::int32_t>(frame.matrix);
        record.range = static_cast<std::int32_t>(frame.range);
        return record;
    }

    std::unique_ptr<Outputs> outputs_;
    std::unique_ptr<unsigned char[]> workspace_;
    std::size_t bytes_ = 0;
    std::unique_ptr<typename Api::Threads, Destroy> threads_;
};

} // namespace abi_2
} // namespace levit_deploy

#endif
