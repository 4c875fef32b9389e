package picture

import (
	"encoding/binary"
	"image"
)

// A turn takes a picture from how it is stored to how it is seen. It exchanges x
// and y first, then mirrors. The zero turn leaves the picture as it is.
type turn uint8

const (
	swapXY turn = 1 << iota // exchange x and y
	flipX                   // mirror left and right
	flipY                   // mirror top and bottom
)

// turns gives the turn for each EXIF orientation from 1 to 8.
var turns = [9]turn{
	1: 0,
	2: flipX,
	3: flipX | flipY,
	4: flipY,
	5: swapXY,
	6: swapXY | flipX,
	7: swapXY | flipX | flipY,
	8: swapXY | flipY,
}

// swaps tells that the turn makes a wide picture a high one.
func (t turn) swaps() bool { return t&swapXY != 0 }

// stored returns where r of a picture of width by height, as seen, lies in the
// picture as stored.
func (t turn) stored(r image.Rectangle, width, height int) image.Rectangle {
	if t&flipX != 0 {
		r.Min.X, r.Max.X = width-r.Max.X, width-r.Min.X
	}
	if t&flipY != 0 {
		r.Min.Y, r.Max.Y = height-r.Max.Y, height-r.Min.Y
	}
	if t.swaps() {
		r = image.Rect(r.Min.Y, r.Min.X, r.Max.Y, r.Max.X)
	}
	return r
}

// place puts row y of a picture as stored where it belongs in the picture as
// seen.
func (t turn) place(seen *image.RGBA, y int, row []byte) {
	at, step := y*seen.Stride, 4
	end := seen.Rect.Dy() - 1
	if t.swaps() {
		at, step = y*4, seen.Stride
		end = seen.Rect.Dx() - 1
	}
	// In the direction of rows a mirror counts from the other end; along the row
	// it begins at the other end and goes back.
	across, along := flipY, flipX
	if t.swaps() {
		across, along = flipX, flipY
	}
	if t&across != 0 {
		at += (end - 2*y) * (seen.Stride + 4 - step)
	}
	if t&along != 0 {
		at += (len(row)/4 - 1) * step
		step = -step
	}
	for i := 0; i < len(row); i += 4 {
		copy(seen.Pix[at:at+4], row[i:i+4])
		at += step
	}
}

// maxEXIF is the most bytes of EXIF data that are looked at.
const maxEXIF = 64 << 10

// turnOf finds the orientation in EXIF data, a TIFF file without pixels. Data
// that it cannot read turn nothing: a picture is worth showing without them.
func turnOf(exif []byte) turn {
	if len(exif) < 8 {
		return 0
	}
	var order binary.ByteOrder
	switch string(exif[:4]) {
	case "II*\x00":
		order = binary.LittleEndian
	case "MM\x00*":
		order = binary.BigEndian
	default:
		return 0
	}
	at := uint64(order.Uint32(exif[4:]))
	if at+2 > uint64(len(exif)) {
		return 0
	}
	const (
		orientationTag = 0x0112
		shortType      = 3
		entrySize      = 12
	)
	entries := exif[at+2:]
	for range order.Uint16(exif[at:]) {
		if len(entries) < entrySize {
			return 0
		}
		if order.Uint16(entries) == orientationTag {
			o := order.Uint16(entries[8:])
			if order.Uint16(entries[2:]) != shortType || int(o) >= len(turns) {
				return 0
			}
			return turns[o]
		}
		entries = entries[entrySize:]
	}
	return 0
}
