package remote

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/klauspost/compress/zstd"
)

// A spool is a file that holds the answer to a join, event by event, while the room
// is brought into the store: the answer for a large room is several times what may be
// held in memory. It is written once from beginning to end and then read in any order.
//
// The file is a row of blocks of some 64 KiB, each compressed on its own behind its
// length, compressed and not, in four bytes each. A block is a row of records: a kind
// byte, the length, and as many bytes. The last record is of kind spoolEnd.
type spool struct {
	file *os.File
	enc  *zstd.Encoder
	dec  *zstd.Decoder

	block  []byte // that is being written
	offset int64  // where it will stand in the file
	packed []byte

	held   []heldBlock // that were read last, the newest last
	unread []byte
}

// heldBlock is a block at hand.
type heldBlock struct {
	offset int64
	next   int64 // where the next block begins
	data   []byte
}

// The kinds of records.
const (
	spoolAuth   = 'a' // a PDU that the state does not have
	spoolState  = 's' // a PDU that the state has
	spoolAgain  = 'S' // the ID of a PDU that came before, and that the state has
	spoolReturn = 'e' // our own event, as the other server returned it
	spoolEnd    = 'z' // nothing: the answer is whole
)

const (
	spoolBlock    = 64 << 10
	maxSpoolBlock = spoolBlock + maxPDUBytes + 16
	spoolHeld     = 8 // blocks at hand
)

// errSpool is wrapped where a spool is not whole.
var errSpool = errors.New("the spool of the join is damaged")

// createSpool makes a spool that is to be written.
func createSpool(path string) (*spool, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	s, err := newSpool(file)
	if err == nil {
		s.enc, err = zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithWindowSize(128<<10),
			zstd.WithEncoderConcurrency(1), zstd.WithLowerEncoderMem(true), zstd.WithEncoderCRC(true))
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return s, nil
}

// openSpool opens a spool that was written.
func openSpool(path string) (*spool, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	return newSpool(file)
}

func newSpool(file *os.File) (*spool, error) {
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxMemory(maxSpoolBlock), zstd.WithDecoderMaxWindow(1<<20))
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return &spool{file: file, dec: dec}, nil
}

// close closes the file.
func (s *spool) close() error {
	s.dec.Close()
	return s.file.Close()
}

// A spoolPlace is where a record stands: the offset of its block in the file, and in
// the lower 20 bits that within the block.
type spoolPlace int64

const inBlock = 20

// write adds a record.
func (s *spool) write(kind byte, data []byte) (spoolPlace, error) {
	place := spoolPlace(s.offset<<inBlock | int64(len(s.block)))
	s.block = append(binary.AppendUvarint(append(s.block, kind), uint64(len(data))), data...)
	if len(s.block) < spoolBlock {
		return place, nil
	}
	return place, s.flush()
}

// flush writes the block that is begun.
func (s *spool) flush() error {
	if len(s.block) == 0 {
		return nil
	}
	s.packed = s.enc.EncodeAll(s.block, append(s.packed[:0], make([]byte, 8)...))
	binary.BigEndian.PutUint32(s.packed, uint32(len(s.packed)-8))
	binary.BigEndian.PutUint32(s.packed[4:], uint32(len(s.block)))
	if _, err := s.file.Write(s.packed); err != nil {
		return fmt.Errorf("spool: %w", err)
	}
	s.offset += int64(len(s.packed))
	s.block = s.block[:0]
	return nil
}

// end ends the writing: the spool is whole, and on disk.
func (s *spool) end() error {
	if _, err := s.write(spoolEnd, nil); err != nil {
		return err
	}
	if err := s.flush(); err != nil {
		return err
	}
	s.enc, s.block, s.packed = nil, nil, nil
	if err := s.file.Sync(); err != nil {
		return fmt.Errorf("spool: %w", err)
	}
	return syncDir(filepath.Dir(s.file.Name()))
}

func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// read returns the record at a place, which is good until the next one is read.
func (s *spool) read(place spoolPlace) (kind byte, data []byte, err error) {
	block, err := s.blockAt(int64(place) >> inBlock)
	if err != nil {
		return 0, nil, err
	}
	kind, data, _, err = readRecord(block.data, int(place&(1<<inBlock-1)))
	return kind, data, err
}

// readRecord reads the record at an offset of a block, and says where the next is.
func readRecord(block []byte, at int) (kind byte, data []byte, next int, err error) {
	if at >= len(block) {
		return 0, nil, 0, fmt.Errorf("record at %d: %w", at, errSpool)
	}
	kind = block[at]
	n, size := binary.Uvarint(block[at+1:])
	at += 1 + size
	if size <= 0 || n > uint64(len(block)-at) {
		return 0, nil, 0, fmt.Errorf("record at %d: %w", at, errSpool)
	}
	return kind, block[at : at+int(n)], at + int(n), nil
}

// blockAt returns the block at an offset of the file.
func (s *spool) blockAt(offset int64) (heldBlock, error) {
	for i, held := range s.held {
		if held.offset == offset {
			copy(s.held[i:], s.held[i+1:])
			s.held[len(s.held)-1] = held
			return held, nil
		}
	}
	var data []byte // that of a block that goes is used again
	if len(s.held) == spoolHeld {
		data = s.held[0].data
		s.held = append(s.held[:0], s.held[1:]...)
	}
	block, err := s.load(offset, data)
	if err == nil {
		s.held = append(s.held, block)
	}
	return block, err
}

func (s *spool) load(offset int64, data []byte) (heldBlock, error) {
	var head [8]byte
	if _, err := s.file.ReadAt(head[:], offset); err != nil {
		return heldBlock{}, fmt.Errorf("block at %d: %w: %w", offset, errSpool, err)
	}
	packed, size := binary.BigEndian.Uint32(head[:]), binary.BigEndian.Uint32(head[4:])
	if packed > 2*maxSpoolBlock || size > maxSpoolBlock {
		return heldBlock{}, fmt.Errorf("block at %d: %w", offset, errSpool)
	}
	if cap(s.unread) < int(packed) {
		s.unread = make([]byte, packed)
	}
	s.unread = s.unread[:packed]
	if _, err := s.file.ReadAt(s.unread, offset+8); err != nil {
		return heldBlock{}, fmt.Errorf("block at %d: %w: %w", offset, errSpool, err)
	}
	data, err := s.dec.DecodeAll(s.unread, data[:0])
	if err != nil || len(data) != int(size) {
		return heldBlock{}, fmt.Errorf("block at %d: %w: %w", offset, errSpool, err)
	}
	return heldBlock{offset, offset + 8 + int64(packed), data}, nil
}

// scan calls fn for each record from the first on, until the one that ends the spool.
// That there is none is an error, as of a spool whose writing was cut short.
func (s *spool) scan(fn func(place spoolPlace, kind byte, data []byte) error) error {
	for offset := int64(0); ; {
		block, err := s.load(offset, nil)
		if err != nil {
			return err
		}
		for at := 0; at < len(block.data); {
			kind, data, next, err := readRecord(block.data, at)
			if err != nil {
				return err
			}
			if kind == spoolEnd {
				return nil
			}
			if err := fn(spoolPlace(offset<<inBlock|int64(at)), kind, data); err != nil {
				return err
			}
			at = next
		}
		offset = block.next
	}
}
