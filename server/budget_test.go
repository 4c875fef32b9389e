package server

import (
	"context"
	"errors"
	"testing"
	"time"

	"hearth/server/api"
)

// Jobs get the budget in turn, never more than there is, and one that is too big
// for it is refused at once.
func TestBudget(t *testing.T) {
	ctx := context.Background()
	b := newBudget(100 * budgetShare)
	release, err := b.take(ctx, 60)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.take(ctx, 101); !errors.Is(err, api.ErrTooLarge) {
		t.Errorf("more than there is: %v", err)
	}
	short, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
	defer cancel()
	if _, err := b.take(short, 60); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a client that left: %v", err)
	}
	second := make(chan error)
	go func() {
		release, err := b.take(ctx, 60)
		if err == nil {
			release()
		}
		second <- err
	}()
	select {
	case err := <-second:
		t.Fatalf("the second job did not wait: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	release()
	if err := <-second; err != nil {
		t.Error(err)
	}
}
