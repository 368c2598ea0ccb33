/* Logits -> probabilities, the best classes, and what they are called. */
#include "float_mode.h"
#include "picture.h"

#if HAS_ANSWERS

/* e^x for x <= 0, within 1e-15 of it: 2^n e^r with |r| <= ln(2) / 2, and the Taylor series. */
static double exponential(double x)
{
    if (!(x > -700)) /* a NaN too */
        return x <= -700 ? 0 : x;
    int n = (int)(x * 1.4426950408889634 - 0.5);
    double r = x - n * 0.693147180369123816490 - n * 1.90821492927058770002e-10;
    double term = 1, sum = 1;
    for (int i = 1; i <= 14; i++) {
        term *= r / i;
        sum += term;
    }
    uint64_t bits = (uint64_t)(1023 + n) << 52;
    double power;
    __builtin_memcpy(&power, &bits, sizeof power);
    return sum * power;
}

/* The largest logit, and the sum of e^(logit - largest) in `*sum`. */
static double softmax_scale(const float *logits, double *sum)
{
    double largest = (double)logits[0];
    for (int i = 1; i < CODE(CLASSES); i++)
        largest = (double)logits[i] > largest ? (double)logits[i] : largest;
    *sum = 0;
    for (int i = 0; i < CODE(CLASSES); i++)
        *sum += exponential((double)logits[i] - largest);
    return largest;
}

int NAME(softmax)(const float *logits, float *probabilities)
{
    if (!logits || !probabilities)
        return CODE(ERROR_NULL);
    float_mode callers = enter_float_mode();
    double sum, largest = softmax_scale(logits, &sum);
    for (int i = 0; i < CODE(CLASSES); i++)
        probabilities[i] = (float)(exponential((double)logits[i] - largest) / sum);
    set_float_mode(callers);
    return CODE(OK);
}

/* The `count` largest, sorted; of equal ones the lower index first. */
void NAME(best)(const float *logits, NAME(answer) *answers, int count)
{
    int found = 0;
    for (int i = 0; i < CODE(CLASSES); i++) {
        int place = found;
        while (place > 0 && answers[place - 1].probability < logits[i])
            place--;
        if (place == count)
            continue;
        found += found < count;
        for (int later = found - 1; later > place; later--)
            answers[later] = answers[later - 1];
        answers[place] = (NAME(answer)){i, logits[i]};
    }
    float_mode callers = enter_float_mode();
    double sum, largest = softmax_scale(logits, &sum);
    for (int i = 0; i < count; i++) {
        double logit = (double)answers[i].probability;
        answers[i].probability = (float)(exponential(logit - largest) / sum);
    }
    set_float_mode(callers);
}

const char *NAME(label)(int class_index)
{
    if (class_index < 0 || class_index >= CODE(CLASSES))
        return NULL;
    return (const char *)NAME(labels) + NAME(label_starts)[class_index];
}

#endif
