import java.io.DataOutputStream;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Paths;
import java.util.Arrays;
import java.util.List;
import levitdeploy.levit_128s.Classifier;
import levitdeploy.levit_128s.Classifier.Answer;
import levitdeploy.levit_128s.Classifier.Format;
import levitdeploy.levit_128s.Classifier.Frame;
import levitdeploy.levit_128s.Classifier.LevitException;
import levitdeploy.levit_128s.Classifier.Matrix;
import levitdeploy.levit_128s.Classifier.Range;

/**
 * App DATA LOGITS ANSWERS: writes the logits of a frame of each format, from the top down and from
 * the bottom up, and the answers for the last one. All that is safe and wrong is an exception.
 */
final class App {
    private static final int WIDTH = 48;
    private static final int HEIGHT = 32;
    private static final int GAP = 7;
    /** Bytes of the rows of each plane of each format. */
    private static final int[][] ROW_BYTES = {
        {144}, {144}, {192}, {192}, {48}, {48, 48}, {48, 48}, {48, 24, 24}, {96}, {96}
    };

    private static byte[] data;

    public static void main(String[] arguments) throws IOException {
        data = Files.readAllBytes(Paths.get(arguments[0]));
        Classifier closed = new Classifier(2);
        try (DataOutputStream out =
                        new DataOutputStream(Files.newOutputStream(Paths.get(arguments[1])));
                Classifier classifier = new Classifier();
                Classifier sharing = new Classifier(3)) {
            for (Format format : Format.values()) {
                for (boolean upwards : new boolean[] {false, true}) {
                    float[] logits = classifier.runFrame(frame(format, upwards, true));
                    for (boolean direct : new boolean[] {false, true}) {
                        same(sharing.runFrame(frame(format, upwards, direct)), logits);
                    }
                    requireAnswers(sharing, frame(format, upwards, true), logits);
                    requireAllBytes(format, upwards);
                    for (float logit : logits) {
                        out.writeInt(Integer.reverseBytes(Float.floatToRawIntBits(logit)));
                    }
                }
            }
            requireImagesOfCameras(classifier);
            requirePacked(classifier);
            requireErrors(classifier);
            sharing.selfTest();
            StringBuilder lines = new StringBuilder();
            for (Answer a : classifier.classify(frame(Format.UYVY, true, true), 100)) {
                int bits = Float.floatToRawIntBits(a.probability);
                lines.append(a.classIndex + " " + a.label + " " + bits + "\n");
            }
            lines.append(Classifier.describe().buildId + "\n");
            lines.append(Classifier.describe().preprocessing + "\n");
            Files.write(Paths.get(arguments[2]), lines.toString().getBytes(StandardCharsets.UTF_8));
        }
        closed.close();
        closed.close();
        refused(IllegalStateException.class, "closed", closed::selfTest);
        Frame frame = frame(Format.RGB, false, true);
        refused(IllegalStateException.class, "closed", () -> closed.classify(frame, 1));
    }

    private static ByteBuffer[] planes(Format format, boolean direct) {
        int[] rowBytes = ROW_BYTES[format.ordinal()];
        ByteBuffer[] planes = new ByteBuffer[rowBytes.length];
        for (int i = 0; i < planes.length; i++) {
            int rows = i == 0 ? HEIGHT : HEIGHT / 2;
            int bytes = (rows - 1) * (rowBytes[i] + GAP) + rowBytes[i];
            planes[i] = bytes(8000 * i, bytes, direct);
        }
        return planes;
    }

    /** With other bytes around them. */
    private static ByteBuffer bytes(int start, int count, boolean direct) {
        ByteBuffer bytes =
                direct ? ByteBuffer.allocateDirect(count + 5) : ByteBuffer.allocate(count + 5);
        bytes.position(3);
        bytes.put(data, start, count);
        bytes.limit(count + 3);
        bytes.position(3);
        return direct ? bytes.asReadOnlyBuffer() : bytes;
    }

    private static int[] strides(Format format, boolean upwards) {
        int[] strides = ROW_BYTES[format.ordinal()].clone();
        for (int i = 0; i < strides.length; i++) {
            strides[i] = (strides[i] + GAP) * (upwards ? -1 : 1);
        }
        return strides;
    }

    private static Frame frame(Format format, boolean upwards, boolean direct) {
        ByteBuffer[] planes = planes(format, direct);
        Frame frame = new Frame(format, WIDTH, HEIGHT, planes, strides(format, upwards));
        frame.rotation = format.ordinal() % 4 * 90;
        frame.mirrored = format.ordinal() % 3 == 1;
        frame.matrix = Matrix.values()[format.ordinal() % 2];
        frame.range = upwards ? Range.FULL : Range.LIMITED;
        return frame;
    }

    /** A byte less in any of the planes is one too few. */
    private static void requireAllBytes(Format format, boolean upwards) {
        for (int i = 0; i < ROW_BYTES[format.ordinal()].length; i++) {
            ByteBuffer[] planes = planes(format, true);
            planes[i].limit(planes[i].limit() - 1);
            refused(
                    IllegalArgumentException.class,
                    "plane " + i + " has " + planes[i].remaining() + " bytes, the frame needs "
                            + (planes[i].remaining() + 1),
                    () -> new Frame(format, WIDTH, HEIGHT, planes, strides(format, upwards)));
        }
    }

    private static void requireAnswers(Classifier classifier, Frame frame, float[] logits) {
        List<Answer> answers = classifier.classify(frame, 100);
        float[] probabilities = Classifier.softmax(logits);
        require(answers.size() == Classifier.CLASSES, "all classes");
        for (int i = 0; i < answers.size(); i++) {
            Answer answer = answers.get(i);
            require(answer.probability == probabilities[answer.classIndex], "softmax");
            require(answer.label.equals(Classifier.label(answer.classIndex)), "label");
            require(i == 0 || answers.get(i - 1).probability >= answer.probability, "order");
        }
        require(classifier.classify(frame, 2).size() == 2, "top");
    }

    /** Planar, interleaved in both orders, neither, and in arrays: the same picture. */
    private static void requireImagesOfCameras(Classifier classifier) {
        int stride = WIDTH + GAP;
        int chromaBytes = 15 * stride + WIDTH;
        ByteBuffer y = bytes(0, 31 * stride + WIDTH, true);
        ByteBuffer chroma = bytes(8000, chromaBytes, true);
        int[] strides = {stride, stride};
        for (Format format : new Format[] {Format.NV12, Format.NV21}) {
            ByteBuffer[] planes = {y, chroma};
            float[] logits = classifier.runFrame(new Frame(format, WIDTH, HEIGHT, planes, strides));
            for (boolean direct : new boolean[] {true, false}) {
                ByteBuffer both = bytes(8000, chromaBytes, direct);
                ByteBuffer even = part(both, 0, chromaBytes - 1);
                ByteBuffer odd = part(both, 1, chromaBytes - 1);
                ByteBuffer u = format == Format.NV12 ? even : odd;
                ByteBuffer v = format == Format.NV12 ? odd : even;
                same(camera(classifier, y, stride, u, v, stride, 2), logits);
                same(camera(classifier, y, stride, spread(u, 2), spread(v, 2), stride, 2), logits);
                for (int pixel : new int[] {1, 3}) {
                    ByteBuffer wideU = spread(u, pixel);
                    same(camera(classifier, y, stride, wideU, spread(v, pixel), 80, pixel), logits);
                    wideU.limit(15 * 80 + 23 * pixel);
                    refused(
                            IllegalArgumentException.class,
                            "plane 1 has",
                            () -> camera(classifier, y, stride, wideU, wideU, 80, pixel));
                }
                even.limit(even.limit() - 1);
                refused(
                        IllegalArgumentException.class,
                        "the frame needs " + (chromaBytes - 1),
                        () -> camera(classifier, y, stride, u, v, stride, 2));
            }
        }
        ByteBuffer late = ByteBuffer.allocateDirect(chromaBytes);
        ByteBuffer even = part(late, 0, chromaBytes - 1).slice();
        ByteBuffer odd = part(late, 1, chromaBytes - 1).slice();
        Frame frame = Frame.yuv420(WIDTH, HEIGHT, y, stride, even, odd, stride, 2);
        late.put(chroma.duplicate()); // it is read where it lies
        ByteBuffer[] planes = {y, chroma};
        same(
                classifier.runFrame(frame),
                classifier.runFrame(new Frame(Format.NV12, WIDTH, HEIGHT, planes, strides)));
        refused(
                IllegalArgumentException.class,
                "rows of chroma overlap",
                () -> camera(classifier, y, stride, chroma, chroma, 46, 2));
        refused(LevitException.class, "odd", () -> classifier.runFrame(
                Frame.yuv420(47, HEIGHT, y, stride, chroma, chroma, stride, 2)));
        refused(LevitException.class, "frame: a side is 0", () -> classifier.runFrame(
                Frame.yuv420(-2, -2, y, stride, chroma, chroma, stride, 2)));
    }

    private static float[] camera(
            Classifier classifier,
            ByteBuffer y,
            int yStride,
            ByteBuffer u,
            ByteBuffer v,
            int stride,
            int pixelStride) {
        return classifier.runFrame(
                Frame.yuv420(WIDTH, HEIGHT, y, yStride, u, v, stride, pixelStride));
    }

    private static ByteBuffer part(ByteBuffer bytes, int start, int count) {
        ByteBuffer part = bytes.duplicate();
        part.limit(bytes.position() + start + count);
        part.position(bytes.position() + start);
        return part;
    }

    /** Samples of chroma that lie 2 apart, with others between them, elsewhere and otherwise. */
    private static ByteBuffer spread(ByteBuffer plane, int pixelStride) {
        int stride = pixelStride == 2 ? WIDTH + GAP : 80;
        ByteBuffer spread = ByteBuffer.allocateDirect(15 * stride + 23 * pixelStride + 1);
        for (int row = 0; row < 16; row++) {
            for (int column = 0; column < 24; column++) {
                int from = plane.position() + row * (WIDTH + GAP) + 2 * column;
                spread.put(row * stride + column * pixelStride, plane.get(from));
            }
        }
        return spread;
    }

    private static void requirePacked(Classifier classifier) {
        byte[] rgb = Arrays.copyOf(data, 3 * WIDTH * HEIGHT);
        ByteBuffer[] planes = {ByteBuffer.wrap(rgb)};
        int[] strides = {3 * WIDTH};
        float[] logits =
                classifier.runFrame(new Frame(Format.RGB, WIDTH, HEIGHT, planes, strides));
        same(classifier.runFrame(Frame.packed(Format.RGB, WIDTH, HEIGHT, rgb)), logits);
        byte[] i420 = Arrays.copyOf(data, WIDTH * HEIGHT * 3 / 2);
        ByteBuffer all = bytes(0, i420.length, true);
        ByteBuffer u = part(all, WIDTH * HEIGHT, WIDTH * HEIGHT / 4);
        ByteBuffer v = part(all, WIDTH * HEIGHT * 5 / 4, WIDTH * HEIGHT / 4);
        same(
                camera(classifier, all, WIDTH, u, v, WIDTH / 2, 1),
                classifier.runFrame(Frame.packed(Format.I420, WIDTH, HEIGHT, i420)));
        Frame frame = Frame.packed(Format.RGB, WIDTH, HEIGHT, rgb);
        logits = classifier.runFrame(frame);
        same(classifier.run8Bit(classifier.prepare(frame)), logits);
        refused(
                IllegalArgumentException.class,
                "48 x 31 pixels of RGB are 4464 bytes, not 4608",
                () -> Frame.packed(Format.RGB, WIDTH, 31, rgb));
        refused(
                IllegalArgumentException.class,
                "pixels of RGB",
                () -> Frame.packed(Format.RGB, -1, -1, new byte[3]));
    }

    private static void requireErrors(Classifier classifier) {
        ByteBuffer bytes = bytes(0, 24000, true);
        int[][] sizes = {{0, 8}, {8, 0}, {16385, 1}, {1, 16385}, {-5, 9}, {Integer.MIN_VALUE, -1}};
        for (int[] size : sizes) {
            for (int stride : new int[] {1, -1}) {
                ByteBuffer[] planes = {bytes};
                int[] strides = {stride};
                refused(LevitException.class, "frame: a side is 0", () -> classifier.runFrame(
                        new Frame(Format.GRAY8, size[0], size[1], planes, strides)));
            }
        }
        for (int stride : new int[] {0, 143, -143}) {
            refused(LevitException.class, "frame: a stride is shorter", () -> classifier.runFrame(
                    new Frame(Format.RGB, WIDTH, HEIGHT, new ByteBuffer[] {bytes},
                            new int[] {stride})));
        }
        for (int stride : new int[] {Integer.MAX_VALUE, Integer.MIN_VALUE, 800, -800}) {
            refused(
                    IllegalArgumentException.class,
                    "plane 0 has 24000 bytes",
                    () -> new Frame(Format.RGB, WIDTH, HEIGHT, new ByteBuffer[] {bytes},
                            new int[] {stride}));
        }
        refused(
                IllegalArgumentException.class,
                "NV12 has 2 planes, there are 1 with 1 strides",
                () -> new Frame(Format.NV12, WIDTH, HEIGHT, new ByteBuffer[] {bytes},
                        new int[] {48}));
        Frame turned = frame(Format.RGB, false, true);
        turned.rotation = 45;
        refused(LevitException.class, "frame: rotation", () -> classifier.runFrame(turned));
        Frame good = frame(Format.RGB, false, true);
        refused(LevitException.class, "not as many classes", () -> classifier.classify(good, 0));
        refused(LevitException.class, "not as many classes", () -> classifier.classify(good, -7));
        for (int count : new int[] {0, 17, Integer.MIN_VALUE}) {
            refused(IllegalArgumentException.class, "threads", () -> new Classifier(count));
        }
        int values = Classifier.CHANNELS * Classifier.IMAGE_SIZE * Classifier.IMAGE_SIZE;
        require(classifier.run(new float[values]).length == Classifier.CLASSES, "run");
        refused(IllegalArgumentException.class, "it takes " + values,
                () -> classifier.run(new float[values + 1]));
        refused(IllegalArgumentException.class, "it takes " + values,
                () -> classifier.run8Bit(new byte[values - 1]));
        refused(IllegalArgumentException.class, "logits", () -> Classifier.softmax(new float[1]));
        for (int index : new int[] {-1, Classifier.CLASSES, Integer.MAX_VALUE}) {
            refused(IllegalArgumentException.class, "there is no class " + index,
                    () -> Classifier.label(index));
        }
    }

    private static void refused(
            Class<? extends RuntimeException> kind, String words, Runnable action) {
        try {
            action.run();
        } catch (RuntimeException error) {
            require(kind.isInstance(error) && error.getMessage().contains(words), "" + error);
            return;
        }
        throw new AssertionError("not refused: " + words);
    }

    private static void same(float[] found, float[] expected) {
        require(Arrays.equals(found, expected), "other logits");
    }

    private static void require(boolean condition, String what) {
        if (!condition) {
            throw new AssertionError(what);
        }
    }
}
