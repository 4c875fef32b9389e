package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"mime"
	"mime/multipart"
	"net/http"
	"net/textproto"
	"net/url"
	"strconv"
	"time"

	"hearth/state/matrix"
	"hearth/store"
)

// A File is a file of another server that is on its way. Whoever reads it closes the
// body.
type File struct {
	Type string // media type as the other server tells it; empty: it does not
	Name string // file name, likewise
	// Body ends with ErrFileTooLarge where there are more bytes than allowed.
	Body io.ReadCloser
}

// MediaQuery says how a file is asked for.
type MediaQuery struct {
	MaxBytes int64         // of the file
	Wait     time.Duration // how long the other server may wait for a file that is to come
}

// ErrFileTooLarge is wrapped where another server's file has more bytes than allowed.
var ErrFileTooLarge = errors.New("the file is too large")

const (
	// maxPartsHead bounds what stands before the bytes of a file: the first part and
	// the headers of the second.
	maxPartsHead = 64 << 10
	// maxPartsMore is how much larger than its file an answer may be.
	maxPartsMore = 2 * maxPartsHead
	// mediaTimeout is how long an answer may take to begin, beside waiting for a file
	// that is to come.
	mediaTimeout = 15 * time.Second
)

// Media asks the server of an mxc:// URI for the file. A server that knows nothing of
// the endpoint is asked as it was done before there were any but open ones. The
// errors are those of [Network.Do].
//
// Spec: SS Content Repository, GET /_matrix/federation/v1/media/download/{mediaId}.
func (n *Network) Media(ctx context.Context, origin matrix.ServerName, id store.MediaID, q MediaQuery) (*File, error) {
	wait := "timeout_ms=" + strconv.FormatInt(q.Wait.Milliseconds(), 10)
	ask := Request{
		Method: http.MethodGet, Insist: true, MaxBytes: q.MaxBytes + maxPartsMore, Timeout: mediaTimeout + q.Wait,
		Path: "/_matrix/federation/v1/media/download/" + url.PathEscape(string(id)) + "?" + wait,
	}
	res, err := n.Stream(ctx, origin, ask)
	if err == nil {
		file, err := n.readParts(ctx, res, q)
		if err != nil {
			return nil, fmt.Errorf("media %s/%s: %w", origin, id, err)
		}
		return file, nil
	}
	if !isUnrecognized(err) {
		return nil, err
	}
	ask.Path = "/_matrix/media/v3/download/" + url.PathEscape(string(origin)) + "/" + url.PathEscape(string(id)) +
		"?allow_remote=false&" + wait
	if res, err = n.Stream(ctx, origin, ask); err != nil {
		return nil, err
	}
	return newFile(textproto.MIMEHeader(res.Header), res.Body, res.Body, q.MaxBytes), nil
}

// isUnrecognized says whether a server answers that it has no such endpoint: with the
// code for that, or as something that is no Matrix endpoint does.
func isUnrecognized(err error) bool {
	var answer *Error
	if !errors.As(err, &answer) {
		return false
	}
	switch answer.Status {
	case http.StatusBadRequest, http.StatusNotFound, http.StatusMethodNotAllowed:
		return answer.Code == "M_UNRECOGNIZED" || answer.Code == ""
	}
	return false
}

// readParts reads an answer up to the bytes of the file: "exactly two parts", of
// which the first is JSON about the file, and the second the file or where it is. It
// closes the answer unless the file is still to be read from it.
func (n *Network) readParts(ctx context.Context, res *http.Response, q MediaQuery) (*File, error) {
	header, body, err := secondPart(res.Header.Get("Content-Type"), res.Body)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%w: %w", ErrUnreachable, err), res.Body.Close())
	}
	if location := header.Get("Location"); location != "" {
		if err := res.Body.Close(); err != nil {
			return nil, err
		}
		return n.redirected(ctx, location, q)
	}
	return newFile(header, body, res.Body, q.MaxBytes), nil
}

// secondPart reads multipart/mixed up to the body of its second part.
func secondPart(mediaType string, body io.Reader) (textproto.MIMEHeader, io.Reader, error) {
	kind, params, err := mime.ParseMediaType(mediaType)
	if err != nil || kind != "multipart/mixed" || params["boundary"] == "" {
		return nil, nil, fmt.Errorf("the answer is of the type %q", mediaType)
	}
	head := &gate{r: body, left: maxPartsHead}
	parts := multipart.NewReader(head, params["boundary"])
	if _, err := parts.NextRawPart(); err != nil {
		return nil, nil, fmt.Errorf("the first part: %w", err)
	}
	second, err := parts.NextRawPart()
	if err != nil {
		return nil, nil, fmt.Errorf("the second part: %w", err)
	}
	head.left = math.MaxInt64 // from here on the bytes of the file count
	return second.Header, second, nil
}

// gate is a reader that gives so many bytes.
type gate struct {
	r    io.Reader
	left int64
}

var errPartsHead = errors.New("too much stands before the file")

func (g *gate) Read(p []byte) (int, error) {
	if g.left <= 0 {
		return 0, errPartsHead
	}
	n, err := g.r.Read(p[:min(int64(len(p)), g.left)])
	g.left -= int64(n)
	return n, err
}

// redirected fetches a file from where its server says that it is. That is a web
// server, which learns nothing of who asks and may not send us on.
func (n *Network) redirected(ctx context.Context, location string, q MediaQuery) (*File, error) {
	u, err := url.Parse(location)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil {
		return nil, fmt.Errorf("%w: the file is said to be at no URL of https", ErrUnreachable)
	}
	within, cancel := context.WithCancel(ctx)
	timer := time.AfterFunc(mediaTimeout, cancel)
	req, err := http.NewRequestWithContext(within, http.MethodGet, u.String(), nil)
	if err != nil {
		cancel()
		return nil, fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	client := http.Client{Transport: n.documents.Transport, CheckRedirect: func(*http.Request, []*http.Request) error {
		return ErrRedirect
	}}
	res, err := client.Do(req)
	if err == nil && res.StatusCode != http.StatusOK {
		err = errors.Join(fmt.Errorf("status %d", res.StatusCode), res.Body.Close())
	}
	if err != nil {
		timer.Stop()
		cancel()
		return nil, fmt.Errorf("%w: the file at %s: %w", ErrUnreachable, u.Host, err)
	}
	timer.Reset(streamStall)
	body := &streamed{body: res.Body, left: q.MaxBytes + 1, timer: timer, cancel: cancel, ended: within.Err, began: n.now(), now: n.now}
	return newFile(textproto.MIMEHeader(res.Header), body, body, q.MaxBytes), nil
}

// newFile returns a file with the headers that describe it.
func newFile(header textproto.MIMEHeader, body io.Reader, closer io.Closer, limit int64) *File {
	_, params, err := mime.ParseMediaType(header.Get("Content-Disposition"))
	if err != nil {
		params = nil
	}
	return &File{
		Type: header.Get("Content-Type"), Name: params["filename"],
		Body: &fileBody{Reader: body, Closer: closer, left: limit},
	}
}

// fileBody is the bytes of a file, so many at most.
type fileBody struct {
	io.Reader
	io.Closer
	left int64
}

func (b *fileBody) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p[:min(int64(len(p)), max(b.left, 0)+1)])
	if b.left -= int64(n); b.left < 0 {
		return 0, ErrFileTooLarge
	}
	if err != nil && err != io.EOF {
		err = fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	return n, err
}
