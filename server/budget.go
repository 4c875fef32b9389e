package server

import (
	"context"
	"time"

	"golang.org/x/sync/semaphore"

	"hearth/server/api"
)

// A budget is the memory that big jobs may use at a time, all of them together. A
// job takes its weight before it begins and gives it back at its end; when there
// is none it waits, and is refused when that takes too long.
type budget struct {
	free  *semaphore.Weighted
	total int64
}

// budgetShare is the part of the ceiling that big jobs get: one in so many. The
// rest is for connections, caches and what is always there.
const budgetShare = 2

// budgetWait is how long a job waits for memory at most.
const budgetWait = 20 * time.Second

func newBudget(ceiling Bytes) *budget {
	total := int64(ceiling / budgetShare)
	return &budget{semaphore.NewWeighted(total), total}
}

// take waits until so many bytes may be used and returns what gives them back. The
// error is M_TOO_LARGE for a job that does not fit at all, M_LIMIT_EXCEEDED for one
// that has waited in vain, or ctx's.
func (b *budget) take(ctx context.Context, bytes int64) (release func(), err error) {
	if bytes > b.total {
		return nil, api.ErrTooLarge.Because("This takes more memory than the server has")
	}
	wait, cancel := context.WithTimeout(ctx, budgetWait)
	defer cancel()
	switch err := b.free.Acquire(wait, bytes); {
	case ctx.Err() != nil && err != nil:
		return nil, ctx.Err()
	case err != nil:
		return nil, api.TryAfter(budgetWait)
	}
	return func() { b.free.Release(bytes) }, nil
}
