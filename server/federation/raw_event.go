package federation

import (
	"net/http"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hearth/server/api"
)

// rawEvent is a PDU as it stands in an answer: as it is stored. Events of old rooms
// may hold what is no good JSON elsewhere.
type rawEvent = jsontext.Value

// lenient are the options for what holds PDUs.
var lenient = []json.Options{jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true)}

// writeLenient answers 200 with what holds a few PDUs.
func writeLenient(w http.ResponseWriter, v any) error {
	body, err := json.Marshal(v, lenient...)
	if err != nil {
		return err
	}
	return api.WriteEncoded(w, body)
}
