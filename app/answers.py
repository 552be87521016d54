"""What the documents of answers have in common."""

from marshmallow import Schema


class Answer(Schema):
    """What an answer says. The document does not close it: clients pass over fields that were added since."""

    class Meta:
        """Tell of no limit to the fields."""

        unknown = "exclude"
