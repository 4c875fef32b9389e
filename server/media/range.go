package media

import (
	"io"
	"net/http"

	"hearth/server/api"
)

// errRange answers a request for bytes that the file does not have.
var errRange = api.ErrInvalidParam.WithStatus(http.StatusRequestedRangeNotSatisfiable).Because("The file has no such bytes")

// A rangeWriter holds back the answer that net/http gives to a bad Range header,
// which is plain text.
type rangeWriter struct {
	http.ResponseWriter
	refused bool
}

func (w *rangeWriter) WriteHeader(status int) {
	if w.refused = status == http.StatusRequestedRangeNotSatisfiable; !w.refused {
		w.ResponseWriter.WriteHeader(status)
	}
}

func (w *rangeWriter) Write(p []byte) (int, error) {
	if w.refused {
		return len(p), nil
	}
	return w.ResponseWriter.Write(p)
}

// ReadFrom keeps the system's way of copying a file to a socket.
func (w *rangeWriter) ReadFrom(src io.Reader) (int64, error) {
	if w.refused {
		return io.Copy(io.Discard, src)
	}
	return io.Copy(w.ResponseWriter, src)
}

// Unwrap lets http.ResponseController reach the server's own writer.
func (w *rangeWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
