use super::*;

/// What libpq 15 makes of connection strings; empty values count as none.
#[test]
fn strings_as_libpq_reads_them() {
    let table = [
        ("host=a port=1", "host=a | port=1"),
        ("host = a  port = 1", "host=a | port=1"),
        ("host = 'a b'port=1", "host=a b | port=1"),
        ("host='a\\'b\\\\c' user=x\\ y", "host=a'b\\c | user=x y"),
        ("host=", ""),
        ("host= port=1", "host=port=1"),
        ("host=a\\", "host=a"),
        ("sslmode=bogus", "sslmode=bogus"),
        ("requiressl=1", "sslmode=require"),
        ("requiressl=0", "sslmode=prefer"),
        ("service=x", "service=x"),
        ("host=a host=b", "host=b"),
        ("postgresql://", ""),
        ("postgres://u@h", "host=h | user=u"),
        ("postgresql://u:p@h:1/d", "dbname=d | host=h | password=p | port=1 | user=u"),
        ("postgresql://u:@h", "host=h | user=u"),
        ("postgresql://:p@h", "host=h | password=p"),
        ("postgresql://@h", "host=h"),
        ("postgresql://h1:1,h2,h3:3/d?application_name=x", "application_name=x | dbname=d | host=h1,h2,h3 | port=1,,3"),
        ("postgresql://h1,h2:5/d", "dbname=d | host=h1,h2 | port=,5"),
        ("postgresql://[::1]:5432/d", "dbname=d | host=::1 | port=5432"),
        ("postgresql://[::1],[::2]:3/d", "dbname=d | host=::1,::2 | port=,3"),
        ("postgresql://%2Ftmp%2Fpg/d", "dbname=d | host=/tmp/pg"),
        ("postgresql:///d?host=/tmp&port=5", "dbname=d | host=/tmp | port=5"),
        ("postgresql://?host=a", "host=a"),
        ("postgresql://h?host=b", "host=b"),
        ("postgresql://h/d?", "dbname=d | host=h"),
        ("postgresql://h/d?host=b&", "dbname=d | host=b"),
        ("postgresql://h/d/e", "dbname=d/e | host=h"),
        ("postgresql://h/d?ssl=true", "dbname=d | host=h | sslmode=require"),
        ("postgresql://h/d?sslmode=require&%75ser=joe", "dbname=d | host=h | sslmode=require | user=joe"),
        ("postgresql://u%40x:p%3Aq@h/d", "dbname=d | host=h | password=p:q | user=u@x"),
        ("postgresql://h:/d", "dbname=d | host=h"),
        ("postgresql://h:abc/d", "dbname=d | host=h | port=abc"),
        ("postgresql://u@a@b/d", "dbname=d | host=a@b | user=u"),
        ("postgresql://u:p:q@b/d", "dbname=d | host=b | password=p:q | user=u"),
        ("postgresql://h/ d", "dbname= d | host=h"),
        ("postgresql://h /d", "dbname=d | host=h "),
        ("postgresql://h?user=a@b", "host=b | user=h?user=a"),
        ("postgresql://h/d?user=a@b", "dbname=d | host=h | user=a@b"),
        ("postgresql://h/d?application_name=a+b", "application_name=a+b | dbname=d | host=h"),
        ("host=a,b port=1,2", "host=a,b | port=1,2"),
        ("postgresql://a:b", "host=a | port=b"),
        ("postgresql://a:@", "user=a"),
        ("postgresql://a,", "host=a, | port=,"),
        ("postgresql://,b", "host=,b | port=,"),
    ];
    for (text, expected) in table {
        let settings = Settings::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        let found: Vec<String> = settings.iter().map(|(keyword, value)| format!("{keyword}={value}")).collect();
        assert_eq!(found.join(" | "), expected, "{text}");
    }
}

/// libpq 15's words.
#[test]
fn strings_that_libpq_refuses() {
    let table = [
        ("mydb", "missing \"=\" after \"mydb\" in connection info string"),
        ("host='abc", "unterminated quoted string in connection info string"),
        ("= x", "invalid connection option \"\""),
        ("hos=a", "invalid connection option \"hos\""),
        ("host a=b", "missing \"=\" after \"host\" in connection info string"),
        ("postgresql://[::1", "end of string reached when looking for matching \"]\" in IPv6 host address in URI: \"postgresql://[::1\""),
        ("postgresql://[]", "IPv6 host address may not be empty in URI: \"postgresql://[]\""),
        ("postgresql://[::1]x", "unexpected character \"x\" at position 19 in URI (expected \":\" or \"/\"): \"postgresql://[::1]x\""),
        ("postgresql://h/d?a", "missing key/value separator \"=\" in URI query parameter: \"a\""),
        ("postgresql://h/d?a=b", "invalid URI query parameter: \"a\""),
        ("postgresql://h/d?host=b=c", "extra key/value separator \"=\" in URI query parameter: \"host\""),
        ("postgresql://h/d?host", "missing key/value separator \"=\" in URI query parameter: \"host\""),
        ("postgresql://h/d?&host=b", "missing key/value separator \"=\" in URI query parameter: \"\""),
        ("postgresql://h/%zz", "invalid percent-encoded token: \"%zz\""),
        ("postgresql://h/%00", "forbidden value %00 in percent-encoded value: \"%00\""),
        ("postgresql://h/%4", "invalid percent-encoded token: \"%4\""),
        ("postgresql://h/d?ssl=false", "invalid URI query parameter: \"ssl\""),
        ("postgresqlx://h", "missing \"=\" after \"postgresqlx://h\" in connection info string"),
        ("POSTGRESQL://h", "missing \"=\" after \"POSTGRESQL://h\" in connection info string"),
        ("postgresql:/h", "missing \"=\" after \"postgresql:/h\" in connection info string"),
    ];
    for (text, expected) in table {
        match Settings::parse(text) {
            Err(error) => assert_eq!(error.to_string(), expected, "{text}"),
            Ok(settings) => panic!("{text}: {settings:?}"),
        }
    }
}
