package remote

import (
	"encoding/binary"
	"hash/fnv"
	"time"

	"hearth/state/matrix"
	"hearth/store"
)

// How long a server is left alone that did not answer: twice as long each time, but
// no longer than a part of the time for which it has been away.
const (
	firstWait  = time.Second
	shortWait  = 10 * time.Second // not more than that at first
	longWait   = 6 * time.Hour    // and never more than that
	absenceCut = 4                // not more than this part of its absence
)

// maxBackoffs bounds the servers that are kept in memory; the others are on disk.
const maxBackoffs = 4096

// backing is how it stands with a server that did not answer.
type backing struct {
	store.Backoff
	failed    time.Time // when it failed last
	unwritten bool
}

// waitAfter returns how long a server is left alone after so many failures.
func waitAfter(failures int, absent time.Duration) time.Duration {
	wait := firstWait << min(failures-1, 20)
	return min(wait, max(shortWait, absent/absenceCut), longWait)
}

// jittered returns a time of 80 to 120 percent, so that not everybody comes back at
// once. It is the same for the same question: what a simulation does, it does again.
func jittered(d time.Duration, from, to matrix.ServerName, turn int) time.Duration {
	h := fnv.New64a()
	h.Write([]byte(from)) // never fails
	h.Write([]byte{0})
	h.Write([]byte(to))
	h.Write(binary.BigEndian.AppendUint64(nil, uint64(turn)))
	sum := h.Sum64()
	sum ^= sum >> 32 // the last bytes hardly reach the upper bits by themselves
	return d/5*4 + time.Duration(float64(d)*0.4*float64(sum%1024)/1023)
}

// RetryAt returns when a server is tried again that did not answer; the zero time,
// if it may be tried now.
func (n *Network) RetryAt(server matrix.ServerName) time.Time {
	b := n.Backoff(server)
	if !n.now().Before(b.Until) {
		return time.Time{}
	}
	return b.Until
}

// Backoff returns how it stands with a server.
func (n *Network) Backoff(server matrix.ServerName) store.Backoff {
	n.mu.Lock()
	b, known := n.backoffs[server]
	n.mu.Unlock()
	if known {
		return b.Backoff
	}
	var stored store.Backoff
	err := n.store.View(func(tx *store.Tx) (err error) {
		stored, err = tx.Backoff(server)
		return err
	})
	if err != nil {
		n.log.Error("read how it stands with a server", "dest", server, "err", err)
	}
	return stored
}

// failed notes that a request to a server, begun at a time, had no answer. Of
// several that were under way together, one counts.
func (n *Network) failed(server matrix.ServerName, began time.Time) {
	n.backOff(server, began, func(b *store.Backoff, now time.Time) {
		b.Failures++
		if b.Since.IsZero() {
			b.Since = now
		}
		wait := waitAfter(b.Failures, now.Sub(b.Since))
		b.Until = now.Add(jittered(wait, n.server, server, b.Failures))
	})
}

// leaveAlone notes that a server wants to be left alone for a while.
func (n *Network) leaveAlone(server matrix.ServerName, began time.Time, wait time.Duration) {
	n.backOff(server, began, func(b *store.Backoff, now time.Time) {
		if b.Since.IsZero() {
			b.Since = now
		}
		b.Until = now.Add(min(max(wait, firstWait), time.Hour))
	})
}

// backOff changes how it stands with a server, once for requests that were under
// way together.
func (n *Network) backOff(server matrix.ServerName, began time.Time, change func(*store.Backoff, time.Time)) {
	stored, now := n.Backoff(server), n.now()
	n.mu.Lock()
	defer n.mu.Unlock()
	b, known := n.backoffs[server]
	if !known {
		b.Backoff = stored
	}
	if known && !began.After(b.failed) && b.Backoff != (store.Backoff{}) {
		return
	}
	change(&b.Backoff, now)
	b.failed, b.unwritten = now, true
	n.putBackoff(server, b)
}

// recovered notes that a server is there, and says whether we had thought that it
// was not.
func (n *Network) recovered(server matrix.ServerName) bool {
	was := n.Backoff(server) != store.Backoff{}
	n.mu.Lock()
	defer n.mu.Unlock()
	if was {
		n.putBackoff(server, backing{unwritten: true})
	}
	return was
}

// putBackoff puts into memory how it stands with a server. Where that is full, one
// goes that is written, and the newcomer is not kept where there is none. n.mu is
// held.
func (n *Network) putBackoff(server matrix.ServerName, b backing) {
	if _, known := n.backoffs[server]; !known && len(n.backoffs) >= maxBackoffs {
		for other, o := range n.backoffs {
			if !o.unwritten {
				delete(n.backoffs, other)
				break
			}
		}
		if len(n.backoffs) >= maxBackoffs {
			return
		}
	}
	n.backoffs[server] = b
}

// takeBackoffs returns what is to be written, at most some of it.
func (n *Network) takeBackoffs() map[matrix.ServerName]store.Backoff {
	n.mu.Lock()
	defer n.mu.Unlock()
	all := make(map[matrix.ServerName]store.Backoff)
	for server, b := range n.backoffs {
		if !b.unwritten {
			continue
		}
		if len(all) == maxWritten {
			break
		}
		all[server] = b.Backoff
		b.unwritten = false
		n.backoffs[server] = b
	}
	return all
}
