package mysql

import (
	"slices"
	"strings"

	"github.com/chainlearn/chainlearn/cache/outbox/internal/sqltemplate"
	"github.com/chainlearn/chainlearn/cache/outbox/sqldb"
)

// kindOf says how a statement outside of a transaction is to be run. It knows no grammar. It skips comments,
// strings and quoted names as the server does in every mode, and judges by words. Where modes
// differ, and for what only the server could tell, such as what a procedure does, it is Unclear.
//
// A statement is a read if no word in it can change a table: it is one SELECT, WITH, TABLE or VALUES, and
// calls nothing but functions that are the server's own on MariaDB and MySQL alike. A stored
// function may have the name of one if it is called with the name of its database, or with a space
// before the parenthesis: both are no reads.
func kindOf(query string) sqldb.Kind {
	s := scan(query)
	switch {
	case s.doubt || s.more:
		return sqldb.Unclear
	case len(s.words) == 0:
		return sqldb.Other
	}
	second := ""
	if len(s.words) > 1 {
		second = s.words[1]
	}
	switch s.words[0] {
	case "select", "with", "table", "values":
		if s.calls || s.assigns || s.has("into", "update", "delete", "insert", "replace") {
			return sqldb.Writes
		}
		return sqldb.Reads
	case "insert", "update", "delete", "replace", "do", "explain", "describe", "desc":
		return sqldb.Writes
	case "load":
		if second == "data" || second == "xml" {
			return sqldb.Writes
		}
	case "show", "savepoint", "prepare", "deallocate", "use":
		return sqldb.Session
	case "release":
		if second == "savepoint" {
			return sqldb.Session
		}
	case "set":
		// Among what a SET may do: begin a transaction, run another statement, change what COMMIT means.
		if !s.calls && !s.quotes && !s.has("autocommit", "completion_type", "statement", "password", "default", "role", "global", "persist") {
			return sqldb.Session
		}
	case "begin":
		if second == "" || second == "work" {
			return sqldb.BeginsTx
		}
	case "start":
		if second == "transaction" {
			return sqldb.BeginsTx
		}
	case "commit":
		if second == "" || second == "work" && len(s.words) == 2 {
			return sqldb.CommitsTx
		}
	case "rollback":
		switch {
		case s.has("chain", "release"):
		case s.has("to"):
			return sqldb.Session
		default:
			return sqldb.RollsTxBack
		}
	case "create", "alter", "drop", "rename", "truncate":
		// They commit what is open, and themselves; but not for a temporary table.
		if !s.has("temporary") {
			return sqldb.CommitsTx
		}
	}
	return sqldb.Unclear
}

// scanned is what was found in SQL.
type scanned struct {
	words   []string // all words of the statement, in lower case
	calls   bool     // something is called that is not known to be harmless
	assigns bool     // has :=
	quotes  bool     // has a quoted name, or what is one in some mode
	more    bool     // has further statements
	doubt   bool     // where something ends depends on the mode, or it does not end, or a comment is run
}

func (s *scanned) has(words ...string) bool {
	return slices.ContainsFunc(s.words, func(w string) bool { return slices.Contains(words, w) })
}

// scan reads SQL.
func scan(query string) *scanned {
	s := &scanned{}
	const name = "`" // stands for a quoted name
	before := ""     // the word before the next token, or name
	spaced := false  // there is a space or a comment before the next token
	dotted := false  // the last token is a dot
	of := false      // before came after a dot
	ended := false   // a semicolon came
	for i := 0; i < len(query) && !s.doubt; {
		c, n := query[i], 1
		switch {
		case strings.IndexByte(" \t\r\n\f\v", c) >= 0:
			spaced = true
			i++
			continue
		case c == '#', strings.HasPrefix(query[i:], "--") && (i+2 == len(query) || query[i+2] <= ' '):
			if n = strings.IndexByte(query[i:], '\n'); n < 0 {
				n = len(query) - i
			}
			spaced = true
			i += n
			continue
		case strings.HasPrefix(query[i:], "/*"):
			end := strings.Index(query[i+2:], "*/")
			text := query[i+2:]
			// What is between /*! or /*M! and */ is run.
			s.doubt = end < 0 || strings.HasPrefix(text, "!") || strings.HasPrefix(text, "M!") || strings.Contains(text[:max(end, 0)], "/*")
			spaced = true
			i += end + 4
			continue
		case c == ';':
			ended = true
			i++
			continue
		}
		if ended {
			s.more = true
			return s
		}
		word := ""
		switch {
		case c == '\'' || c == '"' || c == '`':
			if n = quotation(query[i:]); n < 0 {
				s.doubt = true
				return s
			}
			if c != '\'' {
				s.quotes, word = true, name
			}
		case sqltemplate.IsNameByte(c) || c == '$':
			for n < len(query)-i && (sqltemplate.IsNameByte(query[i+n]) || query[i+n] == '$') {
				n++
			}
			word = strings.ToLower(query[i : i+n])
			s.words = append(s.words, word)
			if (word == "insert" || word == "replace") && i+n < len(query) && query[i+n] == '(' && len(s.words) > 1 && s.words[0] == "select" {
				s.words = s.words[:len(s.words)-1] // the functions
			}
		case c == '(' && before != "":
			switch {
			case of, before == name:
				s.calls = true
			case reserved[before]:
			case spaced, !functions[before]:
				s.calls = true
			}
		case strings.HasPrefix(query[i:], ":="):
			s.assigns = true
		}
		of = dotted && word != ""
		dotted = c == '.'
		before, spaced = word, false
		i += n
	}
	return s
}

// quotation returns the length of what is quoted at the beginning of s, or -1 if it does not end, or ends
// elsewhere in another mode or character set: a backslash before the mark is one thing with
// NO_BACKSLASH_ESCAPES, or in a name with ANSI_QUOTES, and another without; and a byte of several before
// it may belong to it. A doubled mark is two quotations in a row.
func quotation(s string) int {
	mark := s[0]
	end := strings.IndexByte(s[1:], mark) + 1
	if end == 0 {
		return -1
	}
	if mark == '`' {
		return end + 1
	}
	slashes := 0
	for s[end-1-slashes] == '\\' {
		slashes++
	}
	if slashes%2 == 1 || slashes > 0 && s[end-1-slashes] >= 0x80 {
		return -1
	}
	return end + 1
}

func set(words string) map[string]bool {
	m := map[string]bool{}
	for w := range strings.FieldsSeq(words) {
		m[w] = true
	}
	return m
}

// reserved are words that stand before a parenthesis in a read, and that no function can have for a name:
// both servers reserve them.
var reserved = set(`all and as between by case distinct div else exists from having in interval is join like limit not on or over partition
	regexp rlike select then union using values when where with xor
	binary char decimal double float varbinary varchar key index`)

// functions are the server's own that change no table, on MariaDB and on MySQL. Of those that only
// one of them has, a program may have made its own for the other.
var functions = set(`abs acos adddate addtime aes_decrypt aes_encrypt ascii asin atan atan2 avg bin bit_and bit_count bit_length bit_or
	bit_xor cast ceil ceiling char_length character_length charset coalesce coercibility collation concat concat_ws connection_id
	conv convert convert_tz cos cot count crc32 cume_dist curdate current_date current_time current_timestamp current_user curtime
	database date date_add date_format date_sub datediff day dayname dayofmonth dayofweek dayofyear degrees dense_rank elt
	exp export_set extract field find_in_set first_value floor format found_rows from_base64 from_days from_unixtime get_format
	greatest group_concat hex hour if ifnull inet6_aton inet6_ntoa inet_aton inet_ntoa insert instr isnull
	json_array json_array_append json_array_insert json_arrayagg json_contains json_contains_path json_depth json_extract json_insert json_keys
	json_length json_merge_patch json_merge_preserve json_object json_objectagg json_quote json_remove json_replace json_search
	json_set json_type json_unquote json_valid json_value lag last_day last_insert_id last_value lcase lead least left length ln
	localtime localtimestamp locate log log10 log2 lower lpad ltrim make_set makedate maketime match max md5 microsecond mid
	min minute mod month monthname nth_value ntile now nullif oct octet_length ord percent_rank period_add period_diff pi
	position pow power quarter quote radians rand rank regexp_instr regexp_replace regexp_substr repeat replace reverse
	right round row_count row_number rpad rtrim schema sec_to_time second session_user sha sha1 sha2 sign sin soundex space
	sqrt std stddev stddev_pop stddev_samp str_to_date strcmp subdate substr substring substring_index subtime sum sysdate
	system_user tan time time_format time_to_sec timediff timestamp timestampadd timestampdiff to_base64 to_days to_seconds
	trim truncate ucase unhex unix_timestamp upper user utc_date utc_time utc_timestamp uuid uuid_short var_pop var_samp
	variance version week weekday weekofyear weight_string year yearweek`)
