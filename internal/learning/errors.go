package learning

// Kind of an Error: what a caller may do about it.
type Kind uint8

const (
	Internal     Kind = iota // nothing; the zero Kind
	Invalid                  // mend the request
	NotFound                 // it does not exist, or not for this caller
	Forbidden                // the caller lacks something named by the message
	Conflict                 // it is already so
	Unauthorized             // the caller has not proved who it is
	Changed                  // it is not what the caller takes it for
)

// Error is a refusal of the domain. Message is written for the learner; Err, if any, is
// the cause and never leaves the server. An error that is no *Error is internal.
type Error struct {
	Kind    Kind
	Message string
	Fields  map[string][]string // for Invalid: part of the request ("query", "body", "params") → "field: what is wrong"
	Err     error
}

func (e *Error) Error() string {
	if e.Err != nil {
		return e.Message + ": " + e.Err.Error()
	}
	return e.Message
}

func (e *Error) Unwrap() error { return e.Err }
