package api

import (
	"context"
	"net/http"
	"time"
)

// stoppingKey is the context key of the context that ends when the server begins
// to stop.
type stoppingKey struct{}

// WithStopping returns the base context of a server whose long polls shall end
// when stopping does. Other requests are not cut short by it.
func WithStopping(ctx, stopping context.Context) context.Context {
	return context.WithValue(ctx, stoppingKey{}, stopping)
}

// LongPoll returns the context for a wait of a request: it ends after timeout,
// when the client leaves and when the server begins to stop. The handler then
// answers with what it has; use the request's own context for the answer. Call
// cancel at the end of the wait.
func LongPoll(r *http.Request, timeout time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(r.Context(), timeout)
	stopping, ok := r.Context().Value(stoppingKey{}).(context.Context)
	if !ok {
		return ctx, cancel
	}
	forget := context.AfterFunc(stopping, cancel)
	return ctx, func() {
		forget()
		cancel()
	}
}

// Await waits for news as [LongPoll] does, and says whether there is some. It is
// for what thousands of requests do at once: it needs no context of its own.
func Await(r *http.Request, timeout <-chan time.Time, news <-chan struct{}) bool {
	var stopping <-chan struct{}
	if ctx, ok := r.Context().Value(stoppingKey{}).(context.Context); ok {
		stopping = ctx.Done()
	}
	select {
	case <-news:
		return true
	case <-timeout:
	case <-r.Context().Done():
	case <-stopping:
	}
	return false
}
