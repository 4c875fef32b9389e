package matrix

import (
	"bytes"
	"fmt"
	"math"
	"strconv"
)

// numbers says which numbers a document may have and how they are written.
type numbers uint8

const (
	// integersOnly: -?(0|[1-9][0-9]*) within ±(2^53-1), no "-0", as they stand
	// (events of room versions 6 on).
	integersOnly numbers = iota
	// integersRewritten: also "-0", "1e10" and "2.0", which become 0, 10000000000
	// and 2, as in the last canonical JSON example of the appendices.
	integersRewritten
	// anyNumbers: integers of any size, and fractions as the first servers wrote
	// them (events of room versions 1 to 5).
	anyNumbers
)

// numbersOf are the numbers that events of version v may have.
func numbersOf(v *Version) numbers {
	if v.StrictJSON {
		return integersOnly
	}
	return anyNumbers
}

// check tells whether a valid JSON number is one of these numbers.
func (n numbers) check(text []byte) error {
	if isSafeInteger(text) {
		return nil
	}
	switch n {
	case integersRewritten:
		if _, ok := wholeNumber(text); ok {
			return nil
		}
	case anyNumbers:
		if isInteger(text) {
			return nil
		}
		if _, err := strconv.ParseFloat(string(text), 64); err == nil {
			return nil
		}
	}
	return fmt.Errorf("%w: number %s", ErrBadJSON, clip(string(text)))
}

// append writes a number that passed check in its canonical form.
func (n numbers) append(dst, text []byte) []byte {
	switch {
	case n == integersOnly || isSafeInteger(text):
		return append(dst, text...)
	case n == integersRewritten:
		whole, _ := wholeNumber(text)
		return strconv.AppendInt(dst, whole, 10)
	case string(text) == "-0":
		return append(dst, '0')
	case isInteger(text):
		return append(dst, text...)
	default:
		return appendFraction(dst, text)
	}
}

func isInteger(text []byte) bool { return bytes.IndexAny(text, ".eE") < 0 }

// isSafeInteger reports whether text is canonical JSON's kind of number.
func isSafeInteger(text []byte) bool {
	digits := bytes.TrimPrefix(text, []byte{'-'})
	if !isInteger(digits) || len(digits) > 16 || len(digits) < len(text) && digits[0] == '0' {
		return false
	}
	if len(digits) < 16 {
		return true
	}
	value, err := strconv.ParseInt(string(digits), 10, 64)
	return err == nil && value <= maxSafeInteger
}

// wholeNumber is the value of a number in any notation if it is, exactly, an
// integer within ±(2^53-1).
func wholeNumber(text []byte) (int64, bool) {
	digits, negative := bytes.CutPrefix(text, []byte{'-'})
	mantissa, exponent, scale := digits, "", 0
	if e := bytes.IndexAny(digits, "eE"); e >= 0 {
		mantissa, exponent = digits[:e], string(digits[e+1:])
	}
	whole, fraction, _ := bytes.Cut(mantissa, []byte{'.'})
	significant := append(append([]byte(nil), whole...), fraction...)
	trimmed := bytes.TrimRight(significant, "0")
	shift := len(significant) - len(trimmed) - len(fraction)
	trimmed = bytes.TrimLeft(trimmed, "0")
	if len(trimmed) == 0 {
		return 0, true
	}
	if exponent != "" {
		var err error
		if scale, err = strconv.Atoi(exponent); err != nil || scale > maxDocumentBytes || scale < -maxDocumentBytes {
			return 0, false
		}
	}
	shift += scale
	if shift < 0 || len(trimmed)+shift > 16 {
		return 0, false
	}
	value, err := strconv.ParseInt(string(trimmed)+"0000000000000000"[:shift], 10, 64)
	if err != nil || value > maxSafeInteger {
		return 0, false
	}
	if negative {
		value = -value
	}
	return value, true
}

// appendFraction writes a number with a fraction or an exponent in the shortest
// digits that read back as the same double: plain between 1e-4 and 1e16, always
// with a decimal point; with an exponent of two digits at least beyond. The
// specification is silent; the events of versions 1 to 5 that have such numbers
// were hashed in this form by the servers that sent them.
func appendFraction(dst, text []byte) []byte {
	f, _ := strconv.ParseFloat(string(text), 64)
	size := math.Abs(f)
	if size != 0 && (size < 1e-4 || size >= 1e16) {
		return strconv.AppendFloat(dst, f, 'e', -1, 64)
	}
	start := len(dst)
	dst = strconv.AppendFloat(dst, f, 'f', -1, 64)
	if bytes.IndexByte(dst[start:], '.') < 0 {
		dst = append(dst, ".0"...)
	}
	return dst
}
