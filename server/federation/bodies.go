package federation

import "sync"

const (
	// bodyBudget bounds the bodies that are in memory, all together, in bytes.
	// Those of up to smallBody are bounded by the number of connections.
	bodyBudget = 12 << 20
	smallBody  = 64 << 10
	// bodyShare bounds those that come from one house: the largest transaction.
	bodyShare = maxTransactionBytes
)

// bodies counts the bytes of large requests that are in memory. Nobody has proved
// who he is by then, so that what one may have goes by his address.
type bodies struct {
	mu   sync.Mutex // guards the fields below
	sum  int64
	held map[string]int64 // by house, see [api.HouseKey]
}

// take counts so many bytes more for a house, unless there is no room for them.
func (b *bodies) take(house string, bytes int64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.sum+bytes > bodyBudget || b.held[house]+bytes > bodyShare {
		return false
	}
	if b.held == nil {
		b.held = make(map[string]int64)
	}
	b.sum += bytes
	b.held[house] += bytes
	return true
}

// giveBack counts so many bytes less.
func (b *bodies) giveBack(house string, bytes int64) {
	if bytes == 0 {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.sum -= bytes
	if b.held[house] -= bytes; b.held[house] == 0 {
		delete(b.held, house)
	}
}
