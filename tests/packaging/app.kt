import java.io.File
import java.nio.ByteBuffer
import levitdeploy.levit_128s.Classifier
import levitdeploy.levit_128s.Classifier.Format
import levitdeploy.levit_128s.Classifier.Frame
import levitdeploy.levit_128s.Classifier.LevitException

/** What the page's function reads of androidx.camera.core's classes. */
class Plane(val buffer: ByteBuffer, val rowStride: Int, val pixelStride: Int)

class ImageInfo(val rotationDegrees: Int)

class ImageProxy(
    val width: Int, val height: Int, val planes: Array<Plane>, val imageInfo: ImageInfo
)

/** App DATA: the labels of a frame of RGBA, of a camera's image by the page's function, and errors. */
fun main(arguments: Array<String>) {
    val data = File(arguments[0]).readBytes()
    val frame = Frame.packed(Format.RGBA, 90, 60, data).apply { rotation = 90 }
    val closed = Classifier().also { it.close() }
    println(
        Classifier().use { it.classify(frame, 3) }.joinToString("\t") { (index, label) ->
            label.also { check(it == Classifier.label(index)) }
        }
    )

    val (y, u) = Pair(direct(data, 0, 90 * 60), direct(data, 90 * 60, 90 * 30))
    val v = (u.duplicate().position(1) as ByteBuffer).slice()
    u.limit(90 * 30 - 1)
    val planes = arrayOf(Plane(y, 90, 1), Plane(u, 90, 2), Plane(v, 90, 2))
    println(label(ImageProxy(90, 60, planes, ImageInfo(270))))
    classifier.close()

    println(Classifier.describe().buildId)
    check(runCatching { closed.selfTest() }.exceptionOrNull() is IllegalStateException)
    val wrong = frame.apply { rotation = 45 }
    val error = Classifier().use { runCatching { it.runFrame(wrong) }.exceptionOrNull() }
    check(error is LevitException && error.code == 17 && "rotation" in error.message!!)
    try {
        Frame(Format.RGB, 90, 60, arrayOf(ByteBuffer.wrap(byteArrayOf(0))), intArrayOf(270))
    } catch (refused: IllegalArgumentException) {
        println(refused.message)
    }
}

private operator fun Classifier.Answer.component1() = classIndex

private operator fun Classifier.Answer.component2() = label

private fun direct(data: ByteArray, start: Int, count: Int): ByteBuffer {
    val buffer = ByteBuffer.allocateDirect(count)
    buffer.put(data, start, count).flip()
    return buffer
}
